"""The start-up hook in throwaway environments: what it costs, what it registers, and that it never breaks Python."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from argparse import Namespace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
from lm_eval._cli.harness import HarnessCLI
from lm_eval.api import registry
from lm_eval.tasks import TaskManager

from lm_eval_pruned import _autoload, _harness
from lm_eval_pruned.errors import ArgumentError, unknown_name
from tests.environments import HOST_PACKAGES, ROOT, START_UP_LINE, Environment

FINDERS = "[type(f).__name__ for f in sys.meta_path].count('HarnessFinder')"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The checkout and its start-up file, and no other package: no lm_eval either."""
    environment = Environment(tmp_path_factory.mktemp("bare"))
    environment.add_path(ROOT)
    environment.add_start_up_file()
    return environment


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The checkout, its start-up file and the harness."""
    environment = Environment(tmp_path_factory.mktemp("hooked"))
    environment.add_path(HOST_PACKAGES)
    environment.add_path(ROOT)
    environment.add_start_up_file()
    return environment


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the checkout without data and tasks, to be broken or given other tasks."""
    without = shutil.ignore_patterns("__pycache__", "assets")
    shutil.copytree(ROOT / "lm_eval_pruned", tmp_path / "checkout" / "lm_eval_pruned", ignore=without)
    (tmp_path / "checkout" / "tasks").mkdir()
    return tmp_path / "checkout"


@pytest.fixture
def copied(tmp_path: Path, checkout: Path) -> Environment:
    """The copy, its start-up file and the harness."""
    environment = Environment(tmp_path / "environment")
    environment.add_harness()
    environment.add_path(checkout)
    environment.add_start_up_file()
    return environment


def imported_at_start(environment: Environment) -> set[str]:
    lines = environment.run("-X", "importtime", "-c", "pass").stderr.splitlines()
    return {line.rpartition("|")[2].strip() for line in lines}


class TestStart:
    def test_imports_nothing_but_itself(self, bare: Environment, tmp_path: Path) -> None:
        without = Environment(tmp_path)
        without.add_path(ROOT)
        added = imported_at_start(bare) - imported_at_start(without)
        assert added == {"lm_eval_pruned", "lm_eval_pruned._autoload"}

    def test_file_is_the_tested_line(self) -> None:
        assert (ROOT / "lm_eval_pruned.pth").read_text() == START_UP_LINE

    def test_without_the_harness_nothing_changes(self, bare: Environment) -> None:
        assert bare.output("-c", f"import sys; print({FINDERS})") == "1\n"
        assert bare.output("-W", "error", "-c", "import json, importlib.util as u; print(u.find_spec('lm_eval'))") == (
            "None\n"
        )
        failed = bare.run("-c", "import lm_eval.tasks")
        assert failed.stderr.endswith("ModuleNotFoundError: No module named 'lm_eval'\n")
        assert "_autoload" not in failed.stderr

    def test_installs_one_finder(self, bare: Environment) -> None:
        code = (
            "import importlib, sys; from lm_eval_pruned import _autoload; _autoload.install();"
            f"importlib.reload(_autoload); print({FINDERS})"
        )
        assert bare.output("-c", code) == "1\n"


class TestDisabled:
    """LM_EVAL_PRUNED_AUTOLOAD=0 in the environment."""

    def test_no_finder_is_installed(self, bare: Environment) -> None:
        code = f"import sys; print({FINDERS})"
        assert bare.output("-c", code, LM_EVAL_PRUNED_AUTOLOAD="0") == "0\n"
        assert bare.output("-c", code, LM_EVAL_PRUNED_AUTOLOAD="1") == "1\n"

    def test_the_harness_stays_as_it_is(self, hooked: Environment) -> None:
        code = (
            "import lm_eval.models; from lm_eval.api.registry import model_registry;"
            "from lm_eval._cli.harness import HarnessCLI; from lm_eval.tasks import TaskManager;"
            "hooks = [f for f in (HarnessCLI.execute, TaskManager.__init__) if hasattr(f, 'lm_eval_pruned_original')];"
            "print('pruned-hf' in model_registry, len(hooks))"
        )
        assert hooked.output("-c", code, LM_EVAL_PRUNED_AUTOLOAD="0") == "False 0\n"
        assert hooked.output("-c", code) == "True 2\n"


class TestHook:
    def test_registers_without_importing(self, hooked: Environment) -> None:
        code = (
            "import sys; from lm_eval.api.registry import model_registry; import lm_eval.models;"
            "print('pruned-hf' in model_registry, 'torch' in sys.modules, 'lm_eval_pruned.models' in sys.modules)"
        )
        assert hooked.output("-c", code) == "True False False\n"

    def test_modules_imported_earlier_are_hooked_at_once(self, hooked: Environment) -> None:
        code = (
            "import lm_eval.models, lm_eval._cli.harness; from lm_eval.api.registry import model_registry as r;"
            "print('pruned-hf' in r); import lm_eval_pruned._autoload; print('pruned-hf' in r,"
            "hasattr(lm_eval._cli.harness.HarnessCLI.execute, 'lm_eval_pruned_original'))"
        )
        # -S: without start-up files.
        assert (
            hooked.output("-S", "-c", code, PYTHONPATH=os.pathsep.join((str(ROOT), str(HOST_PACKAGES))))
            == "False\nTrue True\n"
        )

    def test_a_second_delegating_finder_does_not_recurse(self, hooked: Environment) -> None:
        code = (
            "import sys\n"
            "class Naive:\n"
            "    def find_spec(self, *wanted):\n"
            "        found = (f.find_spec(*wanted) for f in sys.meta_path if f is not self)\n"
            "        return next(filter(None, found), None)\n"
            "sys.meta_path.insert(0, Naive())\n"
            "import lm_eval.models\n"
            "from lm_eval.api.registry import model_registry\n"
            "print('pruned-hf' in model_registry)"
        )
        assert hooked.output("-c", code) == "True\n"

    def test_an_error_of_another_finder_stays_its_own(self, hooked: Environment) -> None:
        code = (
            "import sys\n"
            "class Blocker:\n"
            "    def find_spec(self, name, *_):\n"
            "        if name == 'lm_eval.models': raise ImportError('blocked by policy')\n"
            # After our finder, which stands first.
            "sys.meta_path.insert(1, Blocker())\n"
            "import lm_eval.models"
        )
        assert hooked.run("-c", code).stderr.endswith("ImportError: blocked by policy\n")

    def test_a_loader_shared_by_modules_applies_to_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class SharedLoader:
            def exec_module(self, module: ModuleType) -> None:
                executed.append(module.__name__)

        executed: list[str] = []
        applied: list[str] = []
        monkeypatch.setattr(_autoload, "_apply", applied.append)
        spec = ModuleSpec("lm_eval.models", SharedLoader())  # type: ignore[arg-type]
        _autoload._patch_loader(spec)
        for name in ("lm_eval.models", "lm_eval.models.dummy"):
            spec.loader.exec_module(ModuleType(name))  # type: ignore[union-attr]
        assert executed == ["lm_eval.models", "lm_eval.models.dummy"]
        assert applied == ["lm_eval.models"]

    def test_finds_what_the_other_finders_find(self) -> None:
        spec = importlib.util.find_spec("lm_eval.models")
        ours = _autoload.HarnessFinder().find_spec("lm_eval.models", sys.modules["lm_eval"].__path__)
        assert spec is not None
        assert ours is not None
        assert (ours.name, ours.origin) == (spec.name, spec.origin)
        assert _autoload.HarnessFinder().find_spec("json") is None


class OtherArguments:
    """A TaskManager of some later harness."""

    all_tasks = ()

    def __init__(self, folders: list[str]) -> None: ...


class OtherProperties:
    """A TaskManager of some other later harness."""

    def __init__(self, include_path: str | None = None, include_defaults: bool = True) -> None: ...


class TestBroken:
    """Whatever is broken in this package, the host program runs on and logs one line."""

    @pytest.mark.parametrize("flags", [[], ["-W", "error"]])
    def test_harness_changes(self, copied: Environment, checkout: Path, flags: list[str]) -> None:
        (checkout / "lm_eval_pruned" / "_harness.py").write_text("raise RuntimeError('something is wrong')\n")
        run = copied.run(*flags, "-c", "import lm_eval.models as m; print(len(m.MODEL_MAPPING) > 0)")
        assert (run.returncode, run.stdout) == (0, "True\n")
        assert run.stderr == "lm_eval_pruned could not extend lm_eval.models: RuntimeError('something is wrong')\n"

    def test_start_up_hook(self, copied: Environment, checkout: Path) -> None:
        (checkout / "lm_eval_pruned" / "_autoload.py").write_text("this is no Python\n")
        run = copied.run("-c", "print('alive')")
        assert (run.returncode, run.stdout) == (0, "alive\n")

    def test_missing_task_folder(self, copied: Environment, checkout: Path) -> None:
        (checkout / "tasks").rmdir()
        run = copied.run("-c", "from lm_eval.tasks import TaskManager; TaskManager(include_defaults=False)")
        assert run.returncode == 0
        assert run.stderr.count("\n") == 1
        assert "could not extend lm_eval.tasks: MissingDataError" in run.stderr

    @pytest.mark.parametrize("shape", [OtherArguments, OtherProperties])
    def test_harness_of_another_shape(
        self, shape: type, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        original = vars(shape)["__init__"]
        monkeypatch.setattr(sys.modules["lm_eval.tasks"], "TaskManager", shape)
        monkeypatch.setattr(_harness, "tasks_folder", lambda: Path("ours"))
        _autoload._apply("lm_eval.tasks")
        assert vars(shape)["__init__"] is original
        assert [record.levelname for record in caplog.records] == ["WARNING"]


class TestModels:
    def test_a_name_the_harness_knows_is_left_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        models: registry.Registry[type] = registry.Registry("model")
        models.register("pruned-hf", target="of.an.entry.point:Model")
        monkeypatch.setattr(registry, "model_registry", models)
        _harness.register_models()
        assert dict(models.items()) == {**_harness.MODELS, "pruned-hf": "of.an.entry.point:Model"}

    def test_twice_is_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        models: registry.Registry[type] = registry.Registry("model")
        monkeypatch.setattr(registry, "model_registry", models)
        _harness.register_models()
        _harness.register_models()
        assert dict(models.items()) == _harness.MODELS


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Task folders of the harness (`defaults`), of ours and of two users; each has the tasks `all` and its own name."""
    made = {}
    for name in ("defaults", "ours", "mine", "theirs"):
        made[name] = tmp_path / name
        made[name].mkdir()
        for task in ("all", name):
            (made[name] / f"{task}.yaml").write_text(f"task: {task}\noutput_type: generate_until\n")
    (made["ours"] / "both.yaml").write_text("task: both\noutput_type: generate_until\n")
    (made["defaults"] / "both.yaml").write_text("task: both\noutput_type: generate_until\n")
    # The harness's default tasks are those in the folder of the file that defines the class.
    monkeypatch.setattr(sys.modules[TaskManager.__module__], "__file__", str(made["defaults"] / "manager.py"))
    monkeypatch.setattr(_harness, "tasks_folder", lambda: made["ours"])
    unhooked = getattr(TaskManager.__init__, "lm_eval_pruned_original", TaskManager.__init__)
    monkeypatch.setattr(TaskManager, "__init__", unhooked)
    _harness.add_task_folder()
    return made


class TestTaskFolder:
    @pytest.mark.parametrize("nothing", [None, "", []])
    def test_is_a_default(self, folders: dict[str, Path], nothing: list[str] | str | None) -> None:
        manager = TaskManager(include_path=nothing)
        assert manager.all_tasks == ["all", "both", "defaults", "ours"]
        assert str(folders["ours"] / "both.yaml") in manager.list_all_tasks()

    @pytest.mark.parametrize("kind", [str, Path, lambda path: [str(path)], lambda path: [path], lambda path: (path,)])
    def test_the_users_path_comes_last(self, folders: dict[str, Path], kind: type) -> None:
        manager = TaskManager(include_path=kind(folders["mine"]))
        assert manager.all_tasks == ["all", "both", "defaults", "mine", "ours"]
        listing = manager.list_all_tasks()
        assert str(folders["mine"] / "all.yaml") in listing
        assert str(folders["ours"] / "both.yaml") in listing

    def test_several_paths_keep_their_order(self, folders: dict[str, Path]) -> None:
        manager = TaskManager(None, [folders["mine"], str(folders["theirs"])])
        assert manager.all_tasks == ["all", "both", "defaults", "mine", "ours", "theirs"]
        assert str(folders["theirs"] / "all.yaml") in manager.list_all_tasks()

    def test_goes_with_the_defaults(self, folders: dict[str, Path]) -> None:
        assert TaskManager(include_path=str(folders["mine"]), include_defaults=False).all_tasks == ["all", "mine"]
        assert TaskManager(None, None, False).all_tasks == []

    def test_is_not_read_twice(self, folders: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
        indirect = folders["mine"] / ".." / "ours"
        assert _harness.include_paths(str(folders["ours"]), indirect) == [str(indirect)]
        (folders["ours"] / "all.yaml").unlink()
        (folders["ours"] / "both.yaml").unlink()
        assert TaskManager(include_path=str(indirect)).all_tasks == ["all", "both", "defaults", "ours"]
        assert caplog.records == []

    def test_is_added_once(self, folders: dict[str, Path]) -> None:
        hooked = TaskManager.__init__
        _harness.add_task_folder()
        assert TaskManager.__init__ is hooked
        assert hooked.lm_eval_pruned_original.__qualname__ == "TaskManager.__init__"
        assert TaskManager(metadata={"folder": str(folders["ours"])}).metadata == {"folder": str(folders["ours"])}

    def test_a_wrong_argument_is_refused_as_before(self, folders: dict[str, Path]) -> None:
        with pytest.raises(TypeError, match="include_paths"):
            TaskManager(include_paths=str(folders["mine"]))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> HarnessCLI:
    """The harness's command with our hook."""
    unhooked = getattr(HarnessCLI.execute, "lm_eval_pruned_original", HarnessCLI.execute)
    monkeypatch.setattr(HarnessCLI, "execute", unhooked)
    _harness.report_errors()
    return HarnessCLI()


def raising(error: BaseException) -> Namespace:
    def run(_: Namespace) -> None:
        raise error

    return Namespace(func=run)


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "line"),
        [
            (ArgumentError("sparsity=2 is not\n  below 1"), "sparsity=2 is not below 1"),
            (unknown_name("alloc", "owll", ["owl"]), "unknown alloc 'owll': did you mean 'owl'? Known: owl"),
            (
                ValueError("Tasks not found: aime24_tss, xyz"),
                "unknown --tasks 'aime24_tss' (did you mean 'aime24_tts'?), 'xyz'. All names: lm_eval ls tasks",
            ),
            (
                ValueError(
                    "Attempted to load model 'pruned_hf', but no model for this name found! "
                    "Supported model names: hf, pruned-hf"
                ),
                "unknown --model 'pruned_hf': did you mean 'pruned-hf'? Known: hf, pruned-hf",
            ),
        ],
    )
    def test_a_mistake_is_one_line(
        self,
        command: HarnessCLI,
        error: Exception,
        line: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(_harness, "_known_tasks", ["aime24_tts", "gsm8k"])
        with pytest.raises(SystemExit) as stop:
            command.execute(raising(error))
        assert stop.value.code == 2
        assert capsys.readouterr() == ("", f"lm_eval: error: {line}\n")

    @pytest.mark.parametrize("error", [ValueError("Need to specify task"), KeyError("x"), KeyboardInterrupt()])
    def test_anything_else_passes(self, command: HarnessCLI, error: BaseException) -> None:
        with pytest.raises(type(error)) as caught:
            command.execute(raising(error))
        assert caught.value is error

    def test_success_passes(self, command: HarnessCLI, capsys: pytest.CaptureFixture[str]) -> None:
        command.execute(Namespace(func=lambda _: print("done")))
        assert capsys.readouterr() == ("done\n", "")

    def test_debug_logging_keeps_the_traceback(self, command: HarnessCLI, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("DEBUG")
        with pytest.raises(SystemExit):
            command.execute(raising(ArgumentError("sparsity=2")))
        assert "in run" in caplog.text

    def test_suggestions_come_from_the_tasks_in_use(self, folders: dict[str, Path], command: HarnessCLI) -> None:
        TaskManager(include_path=str(folders["theirs"]))
        assert _harness._known_tasks == ["all", "both", "defaults", "ours", "theirs"]


class TestStockCommand:
    """The harness's own command in a fresh process, with a task of ours and the harness's dummy as our model."""

    @pytest.fixture
    def stock(self, copied: Environment, checkout: Path) -> Environment:
        tasks = checkout / "tasks"
        (tasks / "rows.jsonl").write_text('{"question": "1+1=", "answer": "2"}\n')
        (tasks / "sums_tts.yaml").write_text(
            "task: sums_tts\n"
            "dataset_path: json\n"
            f"dataset_kwargs: {{data_files: {{test: {tasks / 'rows.jsonl'}}}}}\n"
            "test_split: test\n"
            "output_type: generate_until\n"
            "doc_to_text: '{{question}}'\n"
            "doc_to_target: '{{answer}}'\n"
            "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
        )
        models = checkout / "lm_eval_pruned" / "models"
        shutil.rmtree(models, ignore_errors=True)
        models.mkdir()
        # Some releases give the dummy the GPT-2 tokenizer of the hub.
        (models / "hf.py").write_text(
            "from lm_eval.models.dummy import DummyLM\n\nclass PrunedHFLM(DummyLM):\n    tokenizer = None\n"
        )
        # The dummy has no limits that could be checked.
        (models / "run_check.py").write_text(
            "from contextlib import contextmanager\n\n"
            "@contextmanager\ndef checked_run(arguments, defaults):\n    yield arguments\n"
        )
        return copied

    def test_runs_a_task_of_ours(self, stock: Environment, tmp_path: Path) -> None:
        run = stock.run("-m", "lm_eval", "--model", "pruned-hf", "--tasks", "sums_tts", HF_HOME=str(tmp_path / "hub"))
        assert run.returncode == 0, run.stderr
        assert "|sums_tts|" in run.stdout

    def test_names_the_nearest_task(self, stock: Environment) -> None:
        run = stock.run("-m", "lm_eval", "run", "--model", "pruned-hf", "--tasks", "sums_tss")
        assert run.returncode == 2
        assert "Traceback" not in run.stderr
        assert run.stderr.splitlines()[-1].startswith(
            "lm_eval: error: unknown --tasks 'sums_tss' (did you mean 'sums_tts'"
        )

    def test_simple_evaluate_finds_model_and_task(self, stock: Environment, tmp_path: Path) -> None:
        code = (
            "import lm_eval; r = lm_eval.simple_evaluate(model='pruned-hf', tasks=['sums_tts'], bootstrap_iters=0);"
            "print(r['config']['model'], list(r['results']))"
        )
        run = stock.run("-c", code, HF_HOME=str(tmp_path / "hub"))
        assert run.stdout.splitlines()[-1:] == ["pruned-hf ['sums_tts']"], run.stderr
