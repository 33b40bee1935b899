"""CSV logs are never overwritten; W&B is offline by default and always finished."""

import sys
from types import SimpleNamespace

import pytest

from dq_lightning.training.loggers import (
    csv_logger,
    has_wandb_key,
    log_results,
    wandb_finished,
    wandb_logger,
)


@pytest.fixture(autouse=True)
def no_key(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")  # restored afterwards
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_resumed_run_opens_the_next_csv(tmp_path):
    for number in range(3):
        logger = csv_logger(str(tmp_path))
        logger.log_metrics({"loss": float(number)}, step=number)
        logger.save()
        assert (tmp_path / str(number) / "metrics.csv").is_file()
    assert "0.0" in (tmp_path / "0" / "metrics.csv").read_text()


def test_the_next_csv_is_after_the_last_not_in_a_gap(tmp_path):
    for name in ("0", "7", "notes"):
        (tmp_path / name).mkdir()
    assert csv_logger(str(tmp_path)).version == "8"


@pytest.mark.parametrize(
    ("key", "mode", "offline"),
    [
        (None, None, True),
        (None, "online", False),
        ("secret", None, False),
        ("secret", "offline", True),
    ],
)
def test_offline_unless_a_key_is_there(monkeypatch, tmp_path, key, mode, offline):
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    if mode:
        monkeypatch.setenv("WANDB_MODE", mode)
    made = {}
    run = SimpleNamespace(id="drawn", define_metric=lambda *name, **how: None)
    monkeypatch.setattr("wandb.init", lambda **settings: made.update(settings) or run)
    wandb_logger("dq_lightning", str(tmp_path), "2-2-8 6-3", "sweep", None, False)
    assert made["mode"] == ("offline" if offline else "online")
    assert (made["name"], made["group"]) == ("2-2-8 6-3", "sweep")
    assert made["tags"] == ["2-2-8", "6-3"]


@pytest.mark.parametrize(
    ("cell", "resumed", "environment", "expected"),
    [
        ("0a1b", False, {}, "0a1b"),
        (None, False, {}, None),  # W&B draws one, and a run from the start takes no old one
        (None, True, {}, "old"),
        ("0a1b", True, {}, "0a1b"),
        ("0a1b", False, {"WANDB_RUN_ID": "agent", "WANDB_SWEEP_ID": "s"}, None),  # W&B reads it
    ],
)
def test_the_id_of_a_run(monkeypatch, tmp_path, cell, resumed, environment, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "wandb_run_id.txt").write_text("old\n")
    made = {}
    run = SimpleNamespace(id="new", define_metric=lambda *name, **how: None)
    monkeypatch.setattr("wandb.init", lambda **settings: made.update(settings) or run)
    wandb_logger("dq_lightning", str(tmp_path), "2-2-8 6-3", "sweep", cell, resumed)
    assert (made["id"], made["resume"]) == (expected, "allow")
    assert (tmp_path / "wandb_run_id.txt").read_text() == "new\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, False),
        ("machine example.org login me password x", False),
        ("machine api.wandb.ai login user password x", True),
        ("no netrc at all", False),
    ],
)
def test_a_key_in_netrc(tmp_path, text, found):
    if text is not None:
        (tmp_path / ".netrc").write_text(text)
        (tmp_path / ".netrc").chmod(0o600)
    assert has_wandb_key() is found


@pytest.fixture
def finished(monkeypatch):
    codes = []

    def finish(exit_code):
        codes.append(exit_code)

    fake = SimpleNamespace(run=object(), finish=finish)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return SimpleNamespace(codes=codes, wandb=fake)


def test_a_good_run_ends_with_0(finished):
    with wandb_finished():
        assert finished.codes == []
    assert finished.codes == [0]


@pytest.mark.parametrize(
    ("error", "code"),
    [(ValueError(), 1), (SystemExit(), 1), (SystemExit(143), 143), (KeyboardInterrupt(), 130)],
    ids=repr,
)
def test_a_run_that_raises_ends_with_its_code_and_raises_on(finished, error, code):
    with pytest.raises(type(error)), wandb_finished():
        raise error
    assert finished.codes == [code]


def test_a_ctrl_c_that_lightning_turned_into_an_exit_is_one_still(finished):
    with pytest.raises(SystemExit), wandb_finished():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise SystemExit(1)  # noqa: B904
    assert finished.codes == [130]


def test_nothing_is_finished_where_nothing_was_started(finished, monkeypatch):
    finished.wandb.run = None
    with wandb_finished():
        pass
    monkeypatch.delitem(sys.modules, "wandb")
    with wandb_finished():
        pass
    assert finished.codes == []
    assert "wandb" not in sys.modules  # not even imported


def test_results_go_to_every_logger():
    logged = []
    logger = SimpleNamespace(log_metrics=logged.append, save=lambda: None)
    groups = ("teacher", "student", "drop", "bytes", "generation_seconds")
    metrics = {group: {"x": float(n)} for n, group in enumerate(groups)} | {"timed_items": 32}
    predictions = [{"source": "a", "references": ["b"], "student": "c", "teacher": None}] * 3
    log_results([logger, logger], metrics, predictions, samples=2)
    numbers = {f"{group}/x": float(n) for n, group in enumerate(groups)}
    assert logged == [numbers | {"items_per_second/x": 8.0}] * 2
    logged.clear()
    packed = {"scores": {"wer": 20.5, "per": None}, "identical": 0.998, "drop": {"wer": 0.0}}
    log_results([logger], metrics | {"packed": packed}, predictions, samples=2)
    added = {"packed/wer": 20.5, "packed/identical": 0.998, "items_per_second/x": 8.0}
    assert logged == [numbers | added]
    logged.clear()
    nothing = {"scores": None, "identical": None, "reason": "no compiler"}
    log_results([logger], metrics | {"packed": nothing}, predictions, samples=2)
    assert logged == [numbers | {"items_per_second/x": 8.0}]


def test_a_real_offline_run_is_closed_when_the_run_raises(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    logger = wandb_logger("dq_lightning", str(tmp_path), "2-2-8 6-3", None, None, False)
    with pytest.raises(ValueError, match="broken"), wandb_finished():
        logger.log_metrics({"train/loss": 1.0}, step=1)
        assert sys.modules["wandb"].run is not None
        raise ValueError("broken")
    assert sys.modules["wandb"].run is None
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
