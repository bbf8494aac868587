"""Schedulers, a model's own and those that a config names: which are taken, and what is said of the others."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.models.broken import copy, load, refused, scheduler, settings

EDM = {"_class_name": "EDMEulerScheduler", "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("KarrasVeScheduler", "KarrasVeScheduler cannot be used"),
        ("RePaintScheduler", "RePaintScheduler cannot be used"),
        ("VQDiffusionScheduler", "VQDiffusionScheduler cannot be made of scheduler/scheduler_config.json"),
        ("ScoreSdeVeScheduler", "ScoreSdeVeScheduler takes no steps of the kind that this model needs"),
        ("DDIMSheduler", "diffusers has no DDIMSheduler (did you mean 'DDIMScheduler'?)"),
        ("FlowMatchEulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler integrates a flow"),
    ],
)
def test_an_own_scheduler_that_cannot_be_used_and_one_in_its_place(name: str, message: str, tmp_path: Path):
    folder = copy("sd", tmp_path)
    scheduler(folder, name)
    assert f"sd: its scheduler: {message}" in refused(folder)
    assert type(load(folder, scheduler="DDIMScheduler").pipe.scheduler).__name__ == "DDIMScheduler"


@pytest.mark.parametrize(
    ("name", "package"), [("DPMSolverSDEScheduler", "torchsde"), ("LMSDiscreteScheduler", "scipy")]
)
def test_schedulers_that_need_a_package(name: str, package: str, tmp_path: Path):
    """Where it is there, LMS is used, and the noise of DPMSolverSDE, which is not the picture's, found out."""
    folder = copy("sd", tmp_path)
    scheduler(folder, name)
    if find_spec(package) is None:
        reason = f"needs {package}, which is not installed here: pip install {package}; model.scheduler may name"
        assert f"its scheduler: {name} {reason}" in refused(folder)
    elif package == "torchsde":
        assert f"{name} draws noise that the picture's seed does not decide" in refused(folder)
    else:
        assert type(load(folder).pipe.scheduler).__name__ == name
    rescued = load(folder, scheduler="EulerDiscreteScheduler").pipe.scheduler
    assert type(rescued).__name__ == "EulerDiscreteScheduler"
    assert rescued.config.beta_end == 0.012  # the checkpoint's


@pytest.mark.skipif(find_spec("scipy") is not None, reason="scipy is here")
def test_lms_by_name_without_scipy(tmp_path: Path):
    folder = copy("sd", tmp_path)
    assert "model.scheduler: LMSDiscreteScheduler needs scipy" in refused(folder, scheduler="LMSDiscreteScheduler")


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler"])
def test_a_prediction_type_that_is_none(name: str, tmp_path: Path):
    folder = copy("sd", tmp_path)
    scheduler(folder, name, prediction_type="v-prediction")
    reason = "prediction_type given as v-prediction must be one of"
    assert reason in refused(folder)
    options = {"prediction_type": "v_prediction"}
    assert load(folder, scheduler=name, scheduler_options=options).pipe.scheduler.config.prediction_type


def test_a_prediction_type_that_the_scheduler_cannot_take(tmp_path: Path):
    folder = copy("sd", tmp_path)
    scheduler(folder, "EulerAncestralDiscreteScheduler", prediction_type="sample")
    assert "EulerAncestralDiscreteScheduler cannot be used" in refused(folder)
    load(folder, scheduler="DDIMScheduler")


def test_a_schedule_of_betas_that_is_none(tmp_path: Path):
    folder = copy("sd", tmp_path)
    settings(folder, "scheduler/scheduler_config.json", beta_schedule="cosine")
    assert "DDIMScheduler cannot be made of scheduler/scheduler_config.json: cosine is not" in refused(folder)
    load(folder, scheduler="DDIMScheduler", scheduler_options={"beta_schedule": "scaled_linear"})
    (folder / "scheduler" / "scheduler_config.json").write_text("{")
    assert "its scheduler/scheduler_config.json is no JSON object" in refused(folder)


def test_the_noise_levels_of_edm_are_not_replaced_by_default_betas(tmp_path: Path):
    folder = copy("sdxl", tmp_path)
    refusal = refused(folder, scheduler="EDMEulerScheduler")
    assert "EDMEulerScheduler (EDM) fits checkpoints that were trained for it" in refusal
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(EDM))
    scheduler(folder, "EDMEulerScheduler")
    refusal = refused(folder, scheduler="DDIMScheduler")
    assert "model.scheduler: DDIMScheduler steps through betas, but the model was trained for" in refusal
    assert "use EDMEulerScheduler or EDMDPMSolverMultistepScheduler" in refusal
    other = load(folder, scheduler="EDMDPMSolverMultistepScheduler").pipe.scheduler
    assert other.config.sigma_max == load(folder).pipe.scheduler.config.sigma_max == 80.0


def test_betas_that_nothing_states(tmp_path: Path):
    folder = copy("sd", tmp_path)
    absent = dict.fromkeys(("beta_start", "beta_end", "beta_schedule"), ...)
    scheduler(folder, "IPNDMScheduler", **absent)
    assert "DDIMScheduler steps through betas, and the model's own IPNDMScheduler states none" in refused(
        folder, scheduler="DDIMScheduler"
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("DDIMScheduler", {"eta": 2}, "model.scheduler_options.eta: is 2; expected a number from 0 to 1"),
        ("TCDScheduler", {"eta": True}, "model.scheduler_options.eta: is True; expected a number from 0 to 1"),
        ("DDIMScheduler", {"etta": 1}, "DDIMScheduler has no such option (did you mean 'eta'?)"),
        ("EulerDiscreteScheduler", {"eta": 1}, "eta: EulerDiscreteScheduler has no such option"),
    ],
)
def test_eta_is_checked(name: str, options: dict, message: str, tmp_path: Path):
    assert message in refused(copy("sd", tmp_path), scheduler=name, scheduler_options=options)
