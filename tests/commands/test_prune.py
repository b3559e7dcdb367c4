"""The command `lm-eval-pruned prune`: its model card, and uploads to a stand-in for the hub."""

from __future__ import annotations

import json
import re
import shlex
import shutil

import pytest
from huggingface_hub import ModelCard, constants

from lm_eval_pruned import cli
from lm_eval_pruned.paths import bundled_folder
from lm_eval_pruned.pruning.checkpoint.card import inherited_data
from tests import hub as stand_in

PRUNING = ("--method", "magnitude", "--sparsity", "0.5", "--artifacts", "off")


def prune(output, *arguments, pretrained="tiny-reasoner"):
    return cli.main(["prune", "--pretrained", str(pretrained), *PRUNING, "--output", str(output), *arguments])


@pytest.fixture
def hub(monkeypatch):
    with stand_in.running() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", running.token)
        yield running


@pytest.fixture
def licensed(tmp_path):
    """A checkpoint whose card names its licence."""
    folder = tmp_path / "dense"
    shutil.copytree(bundled_folder(), folder)
    (folder / "README.md").write_text("---\nlicense: mit\nlanguage: [en]\ntags: [chat]\n---\n# The dense model\n")
    return folder


def test_the_card_describes_the_pruned_model_and_not_the_dense_one(tmp_path, licensed):
    assert prune(tmp_path / "out", pretrained=licensed) == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    data = card.data.to_dict()
    assert (data["license"], data["language"], data["library_name"]) == ("mit", ["en"], "transformers")
    assert {"pruned", "magnitude"} <= set(data["tags"])
    # A folder is no model of the hub, and where it lies is nobody's business.
    assert "base_model" not in data
    assert str(tmp_path) not in card.content
    assert "# dense, pruned with magnitude" in card.text
    assert "The dense model" in card.text
    assert "![sparsity of each block](allocation.png)" in card.text
    report = json.loads((tmp_path / "out" / "pruning_report.json").read_text())
    assert f"| fingerprint | `{report['fingerprint']}` |" in card.text
    assert f"| 4 | 0.5 | 0.5 | {report['blocks'][4]['achieved']:.4g} |" in card.text


@pytest.mark.parametrize(
    "flags",
    [
        ("--method", "magnitude", "--pattern", "2:4", "--scope", "mlp", "--exclude", "up|gate"),
        ("--method", "reverse", "--blocks", "1+2"),
    ],
)
def test_the_command_in_the_card_makes_the_same_model(tmp_path, flags):
    first = ["prune", "--pretrained", "tiny-reasoner", *flags, "--output", str(tmp_path / "first")]
    assert cli.main(first) == 0
    (line,) = re.findall("^lm-eval-pruned (.*) --output DIR$", (tmp_path / "first" / "README.md").read_text(), re.M)
    assert cli.main([*shlex.split(line), "--output", str(tmp_path / "second")]) == 0
    made = [(tmp_path / name / "pruning_report.json").read_text() for name in ("first", "second")]
    assert len({json.loads(report)["fingerprint"] for report in made}) == 1


@pytest.mark.parametrize("text", ["no metadata", "---\n: [\n---\n", "---\n- a\n---\n"])
def test_an_odd_card_of_the_dense_model_does_no_harm(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    assert inherited_data([tmp_path / "nowhere", tmp_path]) == {}


# The client's own call of the library that it makes requests with.
@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")
def test_uploads_the_whole_checkpoint_to_a_new_repository(tmp_path, hub, capsys):
    assert prune(tmp_path / "out", "--push-to-hub", "lab/sparse", "--private") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{hub.endpoint}/lab/sparse"
    files = hub.repositories["lab/sparse"]
    assert hub.private["lab/sparse"]
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert "model.safetensors" in written
    assert files == {**written, ".gitattributes": b""}


def test_nothing_is_uploaded_unasked(tmp_path, hub):
    assert prune(tmp_path / "out") == 0
    assert hub.requests == []


@pytest.mark.parametrize(
    ("repo", "mend", "message"),
    [
        ("sparse", {}, "give OWNER/NAME"),
        ("me/a--b", {}, "is not the name of a repository"),
        ("Qwen/sparse", {}, "is not yours to write to: you are logged in as me, so give me/sparse or lab/sparse"),
        ("me/sparse", {"token": "hf_other"}, "the hub does not let this user in"),
        ("me/sparse", {"role": "read"}, "this token may only read"),
        ("me/sparse", {"repositories": {"me/sparse": {"config.json": b"{}"}}}, "already holds 1 files (config.json)"),
        ("reader/sparse", {}, "is not yours to write to"),
        ("me/sparse", {"endpoint": "http://127.0.0.1:9"}, "cannot be reached"),
    ],
)
def test_mistakes_are_found_before_any_weight_is_loaded(tmp_path, hub, monkeypatch, capsys, repo, mend, message):
    for name, value in mend.items():
        setattr(hub, name, value)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    assert prune(tmp_path / "out", "--push-to-hub", repo) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert not any("create" in request for request in hub.requests)


def test_a_private_upload_does_not_go_where_everybody_looks(tmp_path, hub, capsys):
    hub.repositories["me/sparse"], hub.private["me/sparse"] = {}, False
    assert prune(tmp_path / "out", "--push-to-hub", "me/sparse", "--private") == 2
    assert "me/sparse exists, and everybody can see it" in capsys.readouterr().err


# As above.
@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")
def test_an_empty_repository_is_filled_and_not_made_again(tmp_path, hub):
    hub.repositories["me/sparse"], hub.private["me/sparse"] = {".gitattributes": b""}, True
    assert prune(tmp_path / "out", "--push-to-hub", "me/sparse", "--private") == 0
    assert "POST /api/repos/create" not in hub.requests
    assert "model.safetensors" in hub.repositories["me/sparse"]


def test_without_a_login_it_says_how_to_get_one(tmp_path, hub, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert prune(tmp_path / "out", "--push-to-hub", "me/sparse") == 2
    assert "needs a login: run hf auth login, or set HF_TOKEN" in capsys.readouterr().err
    assert hub.requests == []


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")
def test_a_failed_upload_leaves_the_folder_and_says_how_to_go_on(tmp_path, hub, capsys):
    hub.refuses_commits = True
    assert prune(tmp_path / "out", "--push-to-hub", "me/sparse") == 2
    err = capsys.readouterr().err
    assert "Storage limit reached" in err
    assert f"hf upload me/sparse {tmp_path / 'out'}" in err
    assert (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--private",), "--private is for a repository that --push-to-hub makes"),
        (("--push-to-hub", "me/x", "--masks-only"), "--push-to-hub uploads checkpoints"),
    ],
)
def test_flags_that_make_no_sense_together(tmp_path, capsys, flags, message):
    assert prune(tmp_path / "out.safetensors", *flags) == 2
    assert message in capsys.readouterr().err
