"""`push` against a Hub on this machine; `tests/end_to_end/test_push.py` has all that can fail."""

import dataclasses
import shlex

import pytest

from finetune.config.schema import Publish
from finetune.hub import push, push_standard
from finetune.runtime.errors import InputError
from tests.end_to_end.test_push import folder, hub, local, pushed, saved  # noqa: F401

SETTINGS = Publish(repo_id="ann/model")
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's


def test_without_a_repository_nobody_is_asked(hub):  # noqa: F811
    push.check_access(Publish())
    assert hub.requests == []


def test_the_plan_is_what_a_push_does(hub, folder):  # noqa: F811
    plan = push.plan_push(folder, SETTINGS)
    assert plan.where == f"{hub.url}/ann/model, which would be created, public"
    assert hub.repos == {}
    done = push.push(folder, SETTINGS)
    assert done.sent == len(plan.changes)
    assert done.url.endswith(f"/commit/{done.commit}")
    assert pushed(hub) == local(folder)
    again = push.plan_push(folder, SETTINGS)
    assert {change.state for change in again.changes} == {"same"}
    assert push.push(folder, SETTINGS) == dataclasses.replace(done, sent=0)


def test_a_bad_name_is_refused_before_the_hub_is_asked(hub, folder):  # noqa: F811
    with pytest.raises(InputError, match=r"^REPO_ID: 'model' is not a valid repository name"):
        push.push(folder, SETTINGS.model_copy(update={"repo_id": "model"}))
    assert hub.requests == []


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ({}, []),
        ({"private": True, "revision": "next"}, ["--private", "--revision", "next"]),
        ({"pull_request": True}, ["--pull-request"]),
        ({"onnx": True}, ["--onnx"]),
    ],
)
def test_the_command_that_pushes_again(tmp_path, values, options):
    settings = SETTINGS.model_copy(update=values)
    words = shlex.split(push.command(tmp_path / "a run", settings))
    assert words[0] == "python"
    assert words[1].endswith("push_to_hub.py")
    assert words[2:] == [str(tmp_path / "a run"), "ann/model", *options]


@pytest.mark.parametrize(("revision", "branch"), [(None, "onnx"), ("next", "next-onnx")])
def test_the_branch_of_the_standard_layout(revision, branch):
    settings = SETTINGS.model_copy(update={"revision": revision})
    assert push_standard.branch_settings(settings).revision == branch
