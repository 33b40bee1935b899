"""progress.json follows a run through its stages."""

import pytest

from dq_lightning.training import progress_file
from dq_lightning.training.checkpoints import BestAndLast, load_best
from dq_lightning.training.progress_file import ProgressFile


@pytest.mark.filterwarnings("ignore")
def test_stages_and_steps_of_a_run(fit, make_data, tmp_path, monkeypatch):
    """Its last step is validated after the training, which does not begin again by that."""
    monkeypatch.setattr(progress_file, "_SECONDS", 1e9)  # of training, the first step alone
    written = []
    best = BestAndLast(tmp_path / "own", "validation/per", higher_is_better=False)
    fitted = fit(3, interval=2, callbacks=[best, ProgressFile(written.append)])
    assert [one["stage"] for one in written] == ["train", "validate", "train", "test"]
    load_best(fitted.trainer, fitted.module, make_data())
    assert [one["stage"] for one in written[4:]] == ["validate", "test"]
    assert [one["step"] for one in written] == [1, 2, 2, 3, 3, 3]
    assert {one["steps"] for one in written} == {3}
    assert written[0]["validation"] == {}
    assert set(written[2]["validation"]) == {"per", "wer"}
