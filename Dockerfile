# Training in a container; not built where this project is developed.
#
#   docker build -t finetune .
#   docker run --rm -v "$PWD:/workspace" finetune train --recipe bbc_news
#
# The index's own torch for Linux includes CUDA. PyTorch's page on installing names the index of its
# builds for CPUs, which are some GB smaller: --build-arg TORCH="torch --index-url ADDRESS". For a
# GPU, take an image with NVIDIA's libraries that has apt, such as their CUDA base of Ubuntu 24.04:
#
#   docker build -t finetune:cuda --build-arg BASE=IMAGE .
#   docker run --rm --gpus all -v "$PWD:/workspace" finetune:cuda train my_recipe.yaml
ARG BASE=debian:trixie-slim
FROM ${BASE}

# hadolint ignore=DL3008 # Debian keeps one version of each in a release
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

ARG TORCH=torch
ARG EXTRAS=offline,sweep,onnx
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# torch by itself: it is the largest layer, and seldom another.
COPY constraints.txt ./
# hadolint ignore=DL3013,SC2086 # constraints.txt pins it; TORCH may be several words
RUN python3 -m venv /opt/venv && pip install -c constraints.txt ${TORCH}
COPY pyproject.toml README.md LICENSE ./
COPY finetune finetune
COPY recipes recipes
RUN pip install -c constraints.txt ".[${EXTRAS}]"

# Runs and caches are written to the mounted folder. Where it is another user's: docker run --user.
RUN useradd --create-home trainer
USER trainer
ENV HF_HOME=/workspace/.cache/huggingface XDG_CACHE_HOME=/workspace/.cache
WORKDIR /workspace
ENTRYPOINT ["finetune"]
CMD ["doctor"]
