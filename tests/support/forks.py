"""Processes that start at once: forked from one that holds the imports.

A Python that imports torch and transformers takes some seconds of a core before it does anything;
its fork takes none. The tests start hundreds of runs, of which a few of each kind are real ones
(`tests/support/processes.py`); all others come from here.

    process = forks.start("finetune.run", "tiny.yaml", "run.dir=run", cwd=folder)
    done = forks.run("finetune.run", "tiny.yaml", cwd=folder)       # as subprocess.run
    ranks = forks.start_ranks(2, "finetune.run", "tiny.yaml", cwd=folder)

What differs from a process that a user starts: all hash strings alike, and what is read from the
environment at an import was read once (`FIXED` is refused where it differs). Several ranks stand
under a launcher's rule: its store, its environment, and where one fails, the others are told to
end. This module runs as a script in the process that forks, so its top imports little.
"""

import atexit
import contextlib
import importlib.util
import json
import math
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Variables that libraries read as they are imported, or as their first threads start.
FIXED = ("HF_", "TRANSFORMERS_", "OMP_", "MKL_", "PYTHON", "CUDA_", "LD_")
TRAIN = "finetune.run"
AT_STEP = "tests.support.at_step"

# --- the process that forks -----------------------------------------------------------------------


def serve(requests):
    """Fork a child for each request until the other side of the socket is closed."""
    children = set()
    heard, woken = os.pipe()
    os.set_blocking(heard, False)
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who ask
    while True:
        readable, _, _ = select.select([requests, heard], [], [])
        if heard in readable:
            os.read(heard, 1 << 12)
        while children:
            pid, status, used = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                break
            children.discard(pid)
            code, seconds = os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
            _tell(requests, {"ended": pid, "code": code, "seconds": seconds})
        if requests not in readable:
            continue
        length, files, _, _ = socket.recv_fds(requests, 8, 3)
        if not length:
            break
        asked = json.loads(_exactly(requests, int(length)))
        if (pid := os.fork()) == 0:
            signal.set_wakeup_fd(-1)
            requests.close()
            os.close(heard)
            os.close(woken)
            _be_child(asked, files)
        for file in files:
            os.close(file)
        children.add(pid)
        _tell(requests, {"began": pid})
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _tell(requests, message):
    with contextlib.suppress(BrokenPipeError):
        requests.sendall(json.dumps(message).encode() + b"\n")


def _exactly(requests, length):
    found = b""
    while len(found) < length:
        found += requests.recv(length - len(found))
    return found


def _be_child(asked, files):
    """Run `main(words)` of a module as a process of its own, and end as Python does."""
    code = 1
    try:
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        if asked["new_session"]:
            os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv = [asked["module"], *asked["words"]]
        if asked["module"].startswith("scripts."):  # its folder comes first, as Python has it
            file = importlib.util.find_spec(asked["module"]).origin
            sys.argv[0], sys.path[:0] = file, [str(Path(file).parent)]
        code = importlib.import_module(asked["module"]).main() or 0  # of sys.argv
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except KeyboardInterrupt:
        traceback.print_exc()
        code = -signal.SIGINT
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        if code < 0:
            signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        os._exit(code)


def _import_all():
    """What a run imports on its way, and no more: nothing here may compute or start a thread."""
    import pkgutil

    import finetune

    # Of these, what they need may not be installed, and it takes long to import.
    apart = ("finetune.inference.ray_actor", "finetune.inference.demo", "finetune.cli.")
    apart += ("finetune.inference.mlflow_model",)
    for module in pkgutil.walk_packages(finetune.__path__, "finetune."):
        if not module.name.startswith(apart):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:  # of an extra that is not installed here
                if error.name is None or error.name.startswith("finetune"):
                    raise
    for name in LATER:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


# What libraries import when they are first used.
LATER = (
    "datasets",
    "evaluate",
    "sklearn.feature_extraction.text",
    "sklearn.linear_model",
    "torch.distributed.elastic.multiprocessing.errors",
    "torch.nn.parallel",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.configuration_bert",
    "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert",
)


# --- the side that asks ---------------------------------------------------------------------------


class Server:
    """The process that forks, and what it told of its children."""

    def __init__(self):
        from tests.support.processes import ENVIRONMENT

        self.environment = ENVIRONMENT
        self.lock = threading.RLock()
        self.ends, self.heard, self.children, self.seconds = {}, b"", 0, 0.0
        self.socket, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                cwd=ROOT, env=ENVIRONMENT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def start(self, asked, files):
        with self.lock:
            content = json.dumps(asked).encode()
            socket.send_fds(self.socket, [b"%8d" % len(content)], files)
            self.socket.sendall(content)
            self.children += 1
            while "began" not in (told := self._next(None)):
                pass
            return told["began"]

    def code(self, pid, until):
        """A child's exit code, or None where it still runs at that time."""
        with self.lock:
            while pid not in self.ends:
                if self._next(until) is None:
                    return None
            return self.ends[pid]

    def _next(self, until):
        while b"\n" not in self.heard:
            left = None if until is None else max(until - time.monotonic(), 0)
            if not select.select([self.socket], [], [], left)[0]:
                return None
            read = self.socket.recv(1 << 16)
            assert read, "the process that forks has ended"
            self.heard += read
        line, self.heard = self.heard.split(b"\n", 1)
        told = json.loads(line)
        if "began" in told:
            self.ends.pop(told["began"], None)  # a number that was given again
        else:
            self.ends[told["ended"]] = told["code"]
            self.seconds += told["seconds"]
        return told

    def close(self):
        self.socket.close()
        self.process.wait(timeout=60)


_server = None


def server():
    """The one of this process, started when it is first asked for."""
    global _server
    if _server is None or _server.process.poll() is not None:
        _server = Server()
        atexit.register(close)
    return _server


def close():
    global _server
    if _server is not None:
        _server.close()
        _server = None


def told():
    """How many processes were forked so far, and the CPU seconds of those that have ended."""
    return (0, 0.0) if _server is None else (_server.children, _server.seconds)


class Fork:
    """A forked process, with what the tests use of `subprocess.Popen`."""

    def __init__(self, pid, stdout, stderr):
        self.pid, self.stdout, self.stderr, self.returncode = pid, stdout, stderr, None

    def poll(self):
        return self._code(time.monotonic())

    def _code(self, until):
        if self.returncode is None:
            self.returncode = server().code(self.pid, until)
        return self.returncode

    def wait(self, timeout=300):
        """Its exit code; the negative number of the signal that ended it."""
        if self._code(time.monotonic() + timeout) is None:
            self.kill()
            raise subprocess.TimeoutExpired(f"a fork ({self.pid})", timeout)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout=300):
        return _communicate(self, timeout)


class Ranks:
    """Several processes of one run, as under a launcher: where one fails, the others are ended."""

    def __init__(self, forks, store, stdout, stderr):
        self.forks, self.store, self.stdout, self.stderr = forks, store, stdout, stderr
        self.returncode, self.told, self.until = None, False, math.inf

    def poll(self):
        codes = [fork.poll() for fork in self.forks]
        if any(codes) and not self.told:
            self.told = True
            time.sleep(0.1)  # as often as a launcher looks
            for fork in self.forks:
                fork.send_signal(signal.SIGTERM)
            self.until = time.monotonic() + 30  # a launcher's patience with one that is stopped
        if time.monotonic() > self.until:
            self.kill()
        if None not in codes:
            self.returncode = int(any(codes))
            self.store = None
        return self.returncode

    def wait(self, timeout=300):
        """0, or 1 where one has failed."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                self.kill()
                raise subprocess.TimeoutExpired(f"{len(self.forks)} forks", timeout)
            time.sleep(0.02)
        return self.returncode

    def kill(self):
        for fork in self.forks:
            fork.kill()

    def communicate(self, timeout=300):
        return _communicate(self, timeout)


def _communicate(process, timeout):
    """All that a process says until it ends; read by threads, so that no pipe fills."""
    streams = {"stdout": process.stdout, "stderr": process.stderr}
    found = dict.fromkeys(streams)

    def read(name):
        found[name] = streams[name].read()

    readers = [threading.Thread(target=read, args=(name,)) for name in streams if streams[name]]
    for reader in readers:
        reader.start()
    process.wait(timeout)
    for reader in readers:
        reader.join()
    return found["stdout"], found["stderr"]


def start(
    module, *words, cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, environment=None,
    new_session=False,
):  # fmt: skip
    """Begin `main(words)` of a module in a process of its own; as `subprocess.Popen`."""
    with _streams(stdout, stderr) as (files, out, err):
        pid = server().start(_asked(module, words, cwd, environment, new_session), files)
    return Fork(pid, out, err)


def start_ranks(
    many, module, *words, cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, environment=None,
    options=(),
):  # fmt: skip
    """As many processes of one run; `options` are those of `accelerate launch` beside their number.

    The test's process holds the store where they meet, as a launcher does.
    """
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = launch_environment(many, tuple(options)) | (environment or {})
    shared |= {
        "WORLD_SIZE": str(many), "LOCAL_WORLD_SIZE": str(many), "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0", "TORCHELASTIC_RUN_ID": f"forks-{store.port}",
    }  # fmt: skip
    with _streams(stdout, stderr) as (files, out, err):
        ranks = []
        for rank in range(many):
            own = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            pid = server().start(_asked(module, words, cwd, own, False), files)
            ranks.append(Fork(pid, None, None))
    return Ranks(ranks, store, out, err)


def launch_environment(many, options):
    """The variables that `accelerate launch` would give to each process."""
    from accelerate.commands import launch as accelerate_launch
    from accelerate.utils.launch import prepare_multi_gpu_env

    given = ["--num_processes", str(many), *options, "script.py"]
    if "--config_file" not in options:
        given = ["--multi_gpu", "--num_machines", "1", "--mixed_precision", "no",
                 "--dynamo_backend", "no", *given]  # fmt: skip
    before, here = dict(os.environ), os.environ
    try:
        here["ACCELERATE_USE_CPU"] = "true"
        parsed = accelerate_launch.launch_command_parser().parse_args(given)
        parsed, _, _ = accelerate_launch._validate_launch_command(parsed)
        made = prepare_multi_gpu_env(parsed)
    finally:
        here.clear()
        here.update(before)
    return {key: value for key, value in made.items() if before.get(key) != value}


def run(module, *words, cwd, timeout=300, environment=None, stderr=subprocess.PIPE):
    """Await `main(words)` of a module in a process of its own; as `subprocess.run`."""
    process = start(module, *words, cwd=cwd, stderr=stderr, environment=environment)
    out, err = process.communicate(timeout)
    return subprocess.CompletedProcess([module, *words], process.returncode, out, err)


def run_ranks(many, module, *words, cwd, timeout=300, stderr=subprocess.PIPE, **more):
    """As `run`, by several processes."""
    process = start_ranks(many, module, *words, cwd=cwd, stderr=stderr, **more)
    out, err = process.communicate(timeout)
    return subprocess.CompletedProcess([module, *words], process.returncode, out, err)


def _asked(module, words, cwd, environment, new_session):
    whole = server().environment | (environment or {})
    fixed = {key: value for key, value in whole.items() if key.startswith(FIXED)}
    for key, value in fixed.items():
        assert server().environment.get(key) == value, f"{key} is read at import: fork nothing"
    return {
        "module": module, "words": [*map(str, words)], "cwd": str(cwd), "environment": whole,
        "new_session": new_session,
    }  # fmt: skip


@contextlib.contextmanager
def _streams(stdout, stderr):
    """The three descriptors for a child, and the ends from which it is read."""
    with contextlib.ExitStack() as stack:
        nothing = os.open(os.devnull, os.O_RDONLY)
        stack.callback(os.close, nothing)
        files, ends = [nothing], []
        for given in (stdout, stderr):
            end = None
            if given == subprocess.PIPE:
                read, given = os.pipe()
                stack.callback(os.close, given)
                end = os.fdopen(read, "r", encoding="utf-8", errors="backslashreplace")
            elif given == subprocess.STDOUT:
                given = files[1]
            files.append(given)
            ends.append(end)
        yield files, *ends


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    from tests.support import forks  # under its own name, which the children may import

    forks._import_all()
    import gc

    gc.collect()
    gc.freeze()
    forks.serve(socket.socket(fileno=int(sys.argv[1])))
