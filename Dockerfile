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
#
# The stage `serve` answers over HTTP with a model that is mounted (docs/serving.md):
#
#   docker build -t finetune-serve --target serve --build-arg EXTRAS=serve,onnx .
#   docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#       -p 127.0.0.1:8000:8000 -e FINETUNE_API_KEY -v "$PWD/runs/news/model:/model:ro" finetune-serve
ARG BASE=debian:trixie-slim
FROM ${BASE} AS installed

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

# A user without a shell, a home or rights: the process reads the model, and writes nothing.
FROM installed AS serve
RUN pip install -c constraints.txt ".[serve]" \
    && useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin server
USER 10001:10001
ENV HF_HOME=/tmp/huggingface HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=60s CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
ENTRYPOINT ["finetune", "serve"]
CMD ["/model", "--host", "0.0.0.0"]

# The last stage is the one that is built where none is named.
FROM installed AS train
# Runs and caches are written to the mounted folder. Where it is another user's: docker run --user.
RUN useradd --create-home trainer
USER trainer
ENV HF_HOME=/workspace/.cache/huggingface XDG_CACHE_HOME=/workspace/.cache
WORKDIR /workspace
ENTRYPOINT ["finetune"]
CMD ["doctor"]
