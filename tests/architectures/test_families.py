"""Every architecture is pruned right or refused; `checks` says how that is known."""

from __future__ import annotations

import pytest
import transformers

from tests.architectures import table
from tests.architectures.checks import SETTINGS, Family, try_setting
from tests.architectures.families import NOT_BUILT, families

# One of each kind: dense, experts in one tensor, delta net, Mamba, weights stored [in out], several hidden states.
SAMPLE = [
    name for name in ("llama", "qwen3_moe", "qwen3_5_text", "mamba2", "gpt2", "gemma3n_text") if name in families()
]
# All of them take a quarter of an hour on two cores, as in `make architectures`.
EVERY = 5
# A table of another release of transformers says nothing about the installed one.
DOCUMENTED = f"transformers {transformers.__version__} " in table.DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SAMPLE)
@pytest.mark.parametrize("setting", ["wanda", "shortgpt", "prune"])
def test_a_kind_of_architecture_is_pruned_right(name, setting, tmp_path):
    outcome = try_setting(Family.of(name), setting, tmp_path)
    assert outcome.status == "right", outcome.detail


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in families() if name not in NOT_BUILT][::EVERY])
def test_the_table_is_true(name):
    outcomes = table.try_family(name)
    faults = {setting: outcome for setting, outcome in outcomes.items() if outcome.status in ("wrong", "crashed")}
    assert faults == {}
    if DOCUMENTED:
        # Which of several differences a refusal names may depend on the machine.
        wanted = table.row(name, outcomes).rsplit("|", 2)[0]
        lines = table.DOCUMENT.read_text(encoding="utf-8").splitlines()
        assert any(line.startswith(wanted) for line in lines), outcomes


def test_every_family_is_in_the_table():
    rows = [line for line in table.DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    if DOCUMENTED:
        assert [row.split("`")[1] for row in rows if row.split("`")[1] not in SETTINGS] == families()
