"""An audit of a small federation: what it finds, what it leaves, and that it goes on."""

import json

import numpy as np
import pytest

import fljax
from fljax.config import ConfigError, resolve
from fljax.config.experiment import plain_experiment, with_protection
from fljax.config.prediction import config_of_run
from fljax.studies import audit
from fljax.studies.audit.canaries import canary_runs
from fljax.studies.audit.reconstructions import reconstruct_rows
from fljax.studies.audit.shadows import shadow_dataset
from fljax.studies.audit.threats import threat_model
from fljax.training.options import RoundOptions
from tests.small_sweeps import small_config

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

PLAIN = {"privacy": None, "noise_multiplier": None, "delta": None, "clip_norm": None}


def protected_config(**values):
    return small_config(
        num_clients=4, clients_per_round=4, num_rounds=4, partition="iid", val_fraction=0.0,
        model="softmax_regression", local_steps=2, eval_every=4, eval_clients=-1,
        batches="poisson", privacy="dpsgd", noise_multiplier=3.0, clip_norm=1.0, delta=1e-3,
        batch_size=8, client_lr=0.5, **values,
    )  # fmt: skip


SETTINGS = {
    "defences": {"protected": {}, "plain": PLAIN},
    "shadows": 5,
    "targets": 60,
    "population": 100,
    "looks": 2,
    "reconstructed": 0,
}


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("audit")
    settings = audit.make_audit(SETTINGS)
    return workdir, audit.audit(protected_config(), workdir, settings, ["python", "here"])


def test_what_an_audit_finds(audited):
    workdir, found = audited
    assert json.loads((workdir / "audit.json").read_text()) == found
    protected, plain = found["defences"].values()
    assert protected["privacy"]["epsilon"] and plain["privacy"] is None
    assert list(protected["membership"]) == ["model", "rounds", "updates", "sums"]
    for defence in (protected, plain):
        for of_view in defence["membership"].values():
            for judged in of_view.values():
                pooled = judged["pooled"]
                assert pooled["members"] + pooled["others"] == 5 * 60
                assert 0 <= pooled["auc"] <= 1 and set(judged["clients"]) == set("0123")
        assert set(defence["released"]) == {"loss", "modified_entropy", "lira(online=False)"}
        assert [one["client"] for one in defence["utility"]["clients"]] == list("0123")
    for defence in (protected, plain):
        assert 0 <= defence["inversion"]["nearest"] <= 1
        assert defence["inversion"]["picture"] is None  # rows of 64 numbers are no images
    bound = protected["bound"]
    # on fewer rows, the same noise spends more
    assert bound["epsilon"] <= bound["promised"]
    assert bound["promised"] > min(protected["privacy"]["epsilon"].values())
    assert plain["bound"]["promised"] is None


def rows_drawn_again(config, folder):
    """Returns the cases of a reconstruction where clients have three rows altogether."""
    plain = plain_experiment(config)
    held = plain.dataset.train.rows()
    few = shadow_dataset(plain.dataset, held, np.isin(np.arange(len(held)), [0, 500, 1000]))
    settings = audit.make_audit({"reconstructed": 1, "inverted": "idlg(steps=150)"})
    private = with_protection(plain._replace(dataset=few))
    return reconstruct_rows(private, folder, settings)


def test_rows_are_drawn_again_where_no_noise_hides_them(tmp_path):
    config = protected_config()
    config.update(PLAIN)
    config.batches = "shuffled"
    read_off, searched = rows_drawn_again(config, tmp_path)
    assert (read_off["attack"], searched["attack"]) == ("dense_row", "idlg(steps=150)")
    assert min(read_off["psnr"]) > 80 and searched["labels"] == 1
    read_off, _ = rows_drawn_again(protected_config(), tmp_path)
    assert max(read_off["psnr"]) < 15
    assert not list(tmp_path.iterdir())  # rows of 64 numbers are no images


def test_what_an_audit_leaves(audited):
    workdir, found = audited
    for name in ("audit.md", "audit.html"):
        text = (workdir / name).read_text()
        for said in ("Observers", "Limits", "python here", "nothing is promised"):
            assert said in text, said
        assert ('src="data:image/png' in text) == (name == "audit.html")
    assert (workdir / "protected" / "run" / "model" / "final.npz").exists()
    assert "no statement of compliance" in (workdir / "audit.md").read_text()
    assert "epsilon is at least" in audit.findings(found)


def test_an_audit_goes_on_from_what_is_there(audited, monkeypatch):
    workdir, found = audited
    for module, name in (("evidence", "train_federations"), ("launch", "simulate_config")):
        monkeypatch.setattr(f"fljax.studies.audit.{module}.{name}", None)
    again = audit.audit(protected_config(), workdir, audit.make_audit(SETTINGS), ["python", "here"])
    assert again == found
    with pytest.raises(TypeError):  # another question is not answered by what is there
        audit.audit(protected_config(), workdir, audit.make_audit(SETTINGS | {"seed": 1}))


def test_a_finished_run_stands_for_its_configuration(audited, tmp_path, monkeypatch):
    workdir, found = audited
    monkeypatch.setattr("fljax.studies.audit.launch.simulate_config", None)
    run = fljax.load_run(workdir / "protected" / "run")
    settings = SETTINGS | {"defences": {"as trained": {}}, "views": ("model",), "shadows": 5}
    config = resolve(config_of_run(run))
    again = audit.audit(config, tmp_path, audit.make_audit(settings), run=run.directory)
    defence, known = again["defences"]["as trained"], found["defences"]["protected"]
    assert defence["utility"] == known["utility"] and list(defence["membership"]) == ["model"]
    assert defence["released"] == known["released"]
    assert not (tmp_path / "as_trained" / "run").exists()
    for defences, place, said in (
        ({"plain": PLAIN}, run.directory, "stands for a defence that changes nothing"),
        ({"as trained": {}}, tmp_path, "no run that has ended"),
    ):
        with pytest.raises(ValueError, match=said):
            odd = audit.make_audit(SETTINGS | {"defences": defences})
            audit.audit(config, tmp_path / "other", odd, run=place)


def test_canaries_prove_what_no_noise_hides():
    config = small_config(
        num_clients=120, clients_per_round=120, num_rounds=1, partition="iid", val_fraction=0.0,
        model="softmax_regression", sampler="poisson", weighting="uniform", privacy="gaussian",
        noise_multiplier=0.3, clip_norm=1.0, delta=1e-5,
    )  # fmt: skip
    found = canary_runs(config, audit.make_audit({"canaries": 2, "canary_share": 0.5}))
    assert found["runs"] == 2 and found["delta"] == 1e-5
    for bound in found["one_run"]:
        assert 1.0 < bound < found["promised"]  # 60 canaries can prove no more than 2.3
    config.privacy = None
    assert canary_runs(config, audit.make_audit({"canaries": 2})) is None


def test_the_threat_model_follows_the_configuration():
    options = {"num_rounds": 2, "clients_per_round": 3}
    server = threat_model(RoundOptions(**options))[-1]
    assert (server.view, server.hidden) == ("updates", "nothing")
    secure = RoundOptions(**options, secure_aggregation="secure_aggregation")
    assert threat_model(secure)[-1].view == "sums"
    private = RoundOptions(
        **options, privacy="dpsgd", noise_multiplier=1.0, clip_norm=1.0, delta=1e-5
    )
    assert "dpsgd" in threat_model(private)[0].hidden


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"shadow": 3}, "did you mean 'shadows'"),
        ({"shadows": 4}, "shadows = 4"),
        ({"views": ("weights",)}, "views has 'weights'"),
        ({"defences": {}}, "defences ="),
        ({"unit": "hospital"}, "unit = 'hospital'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        audit.make_audit(settings)


def test_what_cannot_be_audited_is_refused(tmp_path):
    config = protected_config()
    with pytest.raises(ValueError, match="must be one of attacks"):
        audit.audit(config, tmp_path, audit.make_audit({"bound": "loss", "attacks": ["lira"]}))
    with pytest.raises(ConfigError, match=r"defences\['odd'\]"):
        audit.audit(
            config, tmp_path, audit.make_audit({"defences": {"odd": {"privacy": "gausian"}}})
        )
    with pytest.raises(ConfigError, match=r"use geiping\(0\)"):
        audit.audit(config, tmp_path, audit.make_audit({"inverted": "geiping"}))
    with pytest.raises(ConfigError, match="no 'gieping'"):
        audit.audit(config, tmp_path, audit.make_audit({"inverted": "gieping"}))
    with pytest.raises(ValueError, match="needs two rows"):
        audit.audit(config, tmp_path, audit.make_audit({"targets": 1}))
    assert not list(tmp_path.iterdir())
