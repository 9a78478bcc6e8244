"""What a session of tests costs: the processes that it starts, and the CPU seconds of all of them.

A plug-in of pytest, which adds a line to the end of each session; `--costliest 20` also lists the
tests that took most. Seconds of a core say more than those of a clock where the machine is busy.
Under xdist every worker tells its own figures to the process that gathers the results.
"""

import resource
import sys
from pathlib import Path

import pytest

from tests.support import forks

KEY = "cost"
started = {"interpreters": 0, "launchers": 0}


def _hear(event, arguments):
    """Count the Pythons that this process starts; those that they start are not seen here."""
    if event == "subprocess.Popen":
        program, words = arguments[0], [str(word) for word in arguments[1]]
        if "python" in Path(str(program or words[0])).name:
            started["interpreters"] += 1
            started["launchers"] += "accelerate.commands.launch" in words


def cpu_seconds():
    """Of this process and of all its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Cost:
    """The plug-in; one of a session in each process."""

    def __init__(self):
        self.before = 0.0
        self.total = {"seconds": 0.0, "interpreters": 0, "launchers": 0, "forks": 0}

    def add(self, figures):
        for name, value in figures.items():
            self.total[name] += value

    def pytest_collection_finish(self):
        self.before = cpu_seconds()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, call):
        """Put what a test cost, with what was made for it first, on its last report."""
        outcome = yield
        if call.when == "teardown":
            now = cpu_seconds() + forks.told()[1]
            outcome.get_result().user_properties.append((KEY, now - self.before))
            self.before = now

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        forked, _ = forks.told()
        forks.close()  # its children's seconds count once it has ended
        mine = started | {"forks": forked}
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[KEY] = mine | {"seconds": cpu_seconds()}
            return
        own = resource.getrusage(resource.RUSAGE_SELF)
        gathers = self.total["seconds"] > 0  # workers were this process's children
        seconds = own.ru_utime + own.ru_stime if gathers else cpu_seconds()
        self.add(mine | {"seconds": seconds})

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        self.add(getattr(node, "workeroutput", {}).get(KEY, {}))

    def pytest_terminal_summary(self, terminalreporter, config):
        reports = [one for kind in terminalreporter.stats.values() for one in kind]
        costs = [
            (dict(one.user_properties)[KEY], one.nodeid)
            for one in reports
            if KEY in dict(getattr(one, "user_properties", ()))
        ]
        for seconds, name in sorted(costs, reverse=True)[: config.getoption("--costliest")]:
            terminalreporter.write_line(f"{seconds:7.2f} CPU seconds  {name}")
        total = self.total
        terminalreporter.write_line(
            f"cost: {total['seconds']:.0f} CPU seconds; {total['interpreters']} interpreters "
            f"started, of them {total['launchers']} launchers; {total['forks']} processes forked"
        )


def install(config):
    sys.addaudithook(_hear)
    config.pluginmanager.register(Cost(), "cost-of-the-session")
