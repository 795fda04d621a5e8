"""diffusers pipelines as plain DPMs: noise schedules against diffusers' own, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UNet2DModel,
    UniPCMultistepScheduler,
    VQModel,
)  # fmt: skip
from safetensors.torch import load_file, save_file

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.bundles.pretrained import open_first_stage
from rdm_cli.cli import main
from rdm_cli.errors import BundleError, CheckpointError
from rdm_cli.methods.diffusers_networks import STEM, find_weights
from rdm_cli.methods.dpm.method import convert
from rdm_cli.methods.dpm.pipelines import find_pipeline, read_pipeline, scheduler_spec
from rdm_cli.pipeline.pipeline import Pipeline

SMALL: dict[str, Any] = {
    "sample_size": 16, "block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D"),
}  # fmt: skip


def saved(folder: Path, *, safe: bool = True, **changes: Any) -> Path:
    UNet2DModel(**(SMALL | changes)).save_pretrained(folder / "unet", safe_serialization=safe)
    DDPMScheduler().save_pretrained(folder / "scheduler")
    return folder


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
def test_noise_schedules_are_diffusers(kind: str) -> None:
    scheduler = DDPMScheduler(beta_schedule=kind, beta_start=0.0008, beta_end=0.015, num_train_timesteps=700)
    spec, prediction = scheduler_spec(dict(scheduler.config))
    assert prediction == "eps" and spec.clip_x_0 and spec.spacing == "linspace"
    torch.testing.assert_close(
        spec.schedule.alpha_bar().float(), scheduler.alphas_cumprod, atol=2e-6, rtol=2e-5
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"beta_schedule": "laplace"}, "beta_schedule 'laplace'"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr True"),
        ({"thresholding": True}, "thresholding True"),
        ({"clip_sample_range": 2.0}, "clip_sample_range 2.0"),
        ({"prediction_type": "flow"}, "prediction_type 'flow'"),
        ({"beta_start": "small"}, "small"),
    ],
)
def test_schedulers_that_rdm_has_no_word_for(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    folder = saved(tmp_path)
    change(folder / "scheduler" / "scheduler_config.json", **changes)
    with pytest.raises(BundleError, match=named) as caught:
        open_bundle(str(folder))
    assert "scheduler_config.json" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"time_embedding_type": "fourier"}, "time_embedding_type 'fourier'"),
        ({"down_block_types": ("DownBlock2D", "SkipDownBlock2D")}, "down_block_types 'SkipDownBlock2D'"),
        ({"up_block_types": ("AttnSkipUpBlock2D", "UpBlock2D")}, "up_block_types 'AttnSkipUpBlock2D'"),
        ({"sample_size": None}, "sample_size None"),
        ({"sample_size": (16, 32)}, r"sample_size \[16, 32\]"),
        ({"out_channels": 4}, "out_channels 4"),
        ({"num_class_embeds": 3}, "class-conditional, and no class is named"),
        ({"class_embed_type": "identity"}, "class_embed_type 'identity'"),
        ({"mid_block_type": "UNetMidBlock2DCrossAttn"}, "mid_block_type"),
    ],
)
def test_networks_that_are_no_plain_unets(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    folder = saved(tmp_path)
    change(folder / "unet" / "config.json", **changes)
    with pytest.raises(BundleError, match=named) as caught:
        open_bundle(str(folder))
    assert "unet/config.json" in str(caught.value)


def test_damaged_folders(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a")
    (folder / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(BundleError, match="scheduler_config.json: this part of the pipeline is missing"):
        open_bundle(str(folder))
    folder = saved(tmp_path / "b")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(BundleError, match="not a network that diffusers opens"):
        open_bundle(str(folder))
    weights.unlink()
    with pytest.raises(BundleError, match="the weights are missing"):
        open_bundle(str(folder))
    with pytest.raises(CheckpointError, match="no diffusers pipeline"):
        convert([tmp_path])


def test_pickled_weights_are_read_by_convert_alone(tmp_path: Path) -> None:
    folder = saved(tmp_path / "old", safe=False)
    with pytest.raises(BundleError, match="these weights are pickled.*rdm bundles convert dpm"):
        open_bundle(str(folder))
    assert main(["bundles", "convert", "dpm", str(folder), "-o", str(tmp_path / "new")]) == 0
    model = open_bundle(str(tmp_path / "new")).model
    pickled = torch.load(folder / "unet" / "diffusion_pytorch_model.bin", weights_only=True)
    ours = model.unet.state_dict()  # type: ignore[attr-defined]
    assert ours.keys() == pickled.keys() and all(torch.equal(ours[name], pickled[name]) for name in ours)


def test_one_class_of_a_class_conditional_network(tmp_path: Path) -> None:
    folder = saved(tmp_path / "classes", num_class_embeds=3)
    files = find_pipeline(folder)
    assert files is not None
    with pytest.raises(CheckpointError, match="there is no class 3: they go from 0 to 2"):
        read_pipeline(files, class_label=3)
    words = ["bundles", "convert", "dpm", str(folder), "-o", str(tmp_path / "one"), "--class-label", "2"]
    assert main(words) == 0
    model: Any = open_bundle(str(tmp_path / "one")).model
    x_t, t = torch.randn(1, 3, 16, 16), torch.tensor([500])
    network = UNet2DModel.from_pretrained(folder / "unet").eval()
    with torch.no_grad():
        expected = network(x_t, t, class_labels=torch.tensor([2])).sample
    # not to the bit: how MKL sums depends on where in memory the weights lie
    torch.testing.assert_close(
        model.denoiser({"z": torch.zeros(1, 0)})(x_t, t), expected, atol=1e-5, rtol=1e-4
    )
    assert (
        main(["bundles", "convert", "pdae", str(folder), "-o", str(tmp_path / "x"), "--class-label", "2"])
        == 2
    )


def test_no_class_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a class is named, and the network knows none"):
        convert([saved(tmp_path)], class_label=1)


def saved_latent(
    folder: Path, kind: str = "vqvae", *, latent_channels: int = 3, unet_channels: int = 3
) -> Path:
    """A diffusers pipeline on the latents of a first stage, by factor 2, with its index."""
    torch.manual_seed(0)
    levels = {
        "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": latent_channels,
    }  # fmt: skip
    if kind == "vqvae":
        stage: Any = VQModel(**levels, num_vq_embeddings=16, scaling_factor=0.7)
    else:
        stage = AutoencoderKL(**levels, scaling_factor=0.7, shift_factor=0.2)
    unet = UNet2DModel(**SMALL)
    scheduler = DDIMScheduler(clip_sample=False, steps_offset=1, set_alpha_to_one=False)
    for name, part in ((kind, stage), ("unet", unet), ("scheduler", scheduler)):
        part.save_pretrained(folder / name)
    index = {
        "_class_name": "LDMPipeline", "_diffusers_version": "0.1", "unet": ["diffusers", "UNet2DModel"],
        "scheduler": ["diffusers", "DDIMScheduler"], kind: ["diffusers", type(stage).__name__],
        "safety_checker": [None, None],
    }  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("kind", ["vqvae", "vae"])
def test_a_latent_pipeline_is_opened_as_a_latent_model(kind: str, tmp_path: Path) -> None:
    folder = saved_latent(tmp_path / "ldm", kind)
    bundle = open_bundle(str(folder))
    model: Any = bundle.model
    assert (model.image_shape, model.x_T_shape) == ((3, 32, 32), (3, 16, 16))
    stage = (VQModel if kind == "vqvae" else AutoencoderKL).from_pretrained(folder / kind).eval()
    shift = 0.0 if kind == "vqvae" else 0.2
    x_0 = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        encoded = stage.encode(x_0)
        latents = encoded.latents if kind == "vqvae" else encoded.latent_dist.mode()
        entered = model.enter(x_0)
        torch.testing.assert_close(entered, (latents - shift) * 0.7, atol=1e-5, rtol=1e-4)
        expected = stage.decode(entered / 0.7 + shift).sample
        torch.testing.assert_close(model.leave(entered), expected, atol=1e-5, rtol=1e-4)
    codes = Pipeline(bundle=bundle).encode(x_0, inversion="exact", steps=4)
    assert codes.x_T is not None and codes.x_T.shape == (2, 3, 16, 16)
    back = Pipeline(bundle=bundle).decode(codes)
    torch.testing.assert_close(back, model.leave(entered), atol=1e-3, rtol=0)
    # and converted it is the same model
    assert main(["bundles", "convert", "dpm", str(folder), "-o", str(tmp_path / "new")]) == 0
    converted = open_bundle(str(tmp_path / "new"))
    assert converted.parts == ("first_stage", "scheduler", "unet")
    ours, theirs = converted.model.state_dict(), model.state_dict()  # type: ignore[attr-defined]
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert converted.model.enter(x_0).equal(model.enter(x_0))


def test_a_latent_model_trains_on_images(tmp_path: Path) -> None:
    """``train dpm --init-from``: images go through the first stage, which stays as it is."""
    model: Any = open_bundle(str(saved_latent(tmp_path, "vae"))).model
    model.unet.requires_grad_(True)
    model.train()
    assert not model.first_stage.training
    x_0, eps, noise = (torch.randn(2, *shape) for shape in ((3, 32, 32), (3, 16, 16), (3, 16, 16)))
    t = torch.tensor([5, 800])
    loss = model(x_0, t, eps, noise={"latents": noise})
    posterior = model.first_stage.encode(x_0).latent_dist
    latents = (posterior.mean + posterior.std * noise - 0.2) * 0.7
    torch.testing.assert_close(loss, model.loss(latents, t, eps), atol=1e-5, rtol=1e-4)
    assert model.noise_shapes == {"latents": (3, 16, 16)} and model.config.image_size == 32


def test_pdae_is_not_trained_around_a_latent_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = saved_latent(tmp_path / "ldm")
    (tmp_path / "faces").mkdir()
    words = ["train", "pdae", str(tmp_path / "faces"), "--dpm", str(folder), "-o", str(tmp_path / "out")]
    assert main(words) == 2
    assert "it diffuses the latents of a first stage, and PDAE works on images" in capfd.readouterr().err


def test_a_latent_pipeline_whose_parts_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="latents have 4 channels, and the UNet works on 3"):
        open_bundle(str(saved_latent(tmp_path / "a", "vae", latent_channels=4)))
    folder = saved_latent(tmp_path / "b")
    (folder / "vqvae" / "config.json").unlink()
    with pytest.raises(BundleError, match="vqvae/config.json: this part of the pipeline is missing"):
        open_bundle(str(folder))
    # without an index, a first stage that lies there is the pipeline's own
    folder = saved_latent(tmp_path / "c")
    (folder / "model_index.json").unlink()
    assert open_bundle(str(folder)).model.image_size == 32


@pytest.mark.parametrize("part", ["text_encoder", "bert", "mel", "image_encoder", "low_res_scheduler"])
def test_pipelines_of_other_parts_are_refused_by_name(part: str, tmp_path: Path) -> None:
    folder = saved_latent(tmp_path)
    change(folder / "model_index.json", **{part: ["transformers", "Thing"]})
    with pytest.raises(BundleError, match=rf"a diffusers LDMPipeline, whose {part} \(Thing\) rdm cannot use"):
        open_bundle(str(folder))


def test_a_pipeline_of_another_network_is_refused_by_name(tmp_path: Path) -> None:
    folder = saved_latent(tmp_path)
    change(folder / "unet" / "config.json", _class_name="UNet2DConditionModel")
    change(folder / "model_index.json", _class_name="StableDiffusionPipeline")
    with pytest.raises(BundleError, match="a diffusers StableDiffusionPipeline, without a UNet2DModel"):
        open_bundle(str(folder))


@pytest.mark.parametrize(
    ("kind", "clips"),
    [
        (DDPMScheduler, True), (DDIMScheduler, True), (PNDMScheduler, False), (EulerDiscreteScheduler, False),
        (EulerAncestralDiscreteScheduler, False), (HeunDiscreteScheduler, False),
        (LMSDiscreteScheduler, False), (DPMSolverMultistepScheduler, False),
        (UniPCMultistepScheduler, False), (DEISMultistepScheduler, False),
    ],
)  # fmt: skip
def test_what_a_scheduler_says_and_leaves_out(kind: Any, clips: bool, tmp_path: Path) -> None:
    """Its own class's defaults hold: not every scheduler clamps x_0, nor has DDPM's betas."""
    folder = saved(tmp_path)
    scheduler = kind()
    scheduler.save_pretrained(folder / "scheduler")
    path = folder / "scheduler" / "scheduler_config.json"
    text = path.read_text()
    if kind is DPMSolverMultistepScheduler:
        assert "-Infinity" in text  # as diffusers writes it, though it is no JSON
    full = open_bundle(str(folder)).model.sampling
    assert full.clip_x_0 is clips
    torch.testing.assert_close(
        full.schedule.alpha_bar().float(), scheduler.alphas_cumprod, atol=2e-6, rtol=2e-5
    )
    path.write_text(json.dumps({"_class_name": kind.__name__}))
    assert open_bundle(str(folder)).model.sampling == full


def test_schedulers_of_unknown_classes_say_all_themselves() -> None:
    values = dict(DDPMScheduler().config) | {"_class_name": "MyScheduler"}
    assert scheduler_spec(values)[0].clip_x_0
    del values["clip_sample"]
    assert not scheduler_spec(values)[0].clip_x_0
    del values["beta_end"]
    with pytest.raises(ValueError, match="beta_end is missing"):
        scheduler_spec(values)
    with pytest.raises(ValueError, match="snr_shift_scale 3.0: rdm samples without"):
        scheduler_spec({"_class_name": "CogVideoXDDIMScheduler"})
    assert scheduler_spec({"_class_name": "DDPMScheduler", "predict_epsilon": False})[1] == "x_0"


def test_infinity_is_no_beta(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    for value in (float("inf"), float("-inf"), float("nan")):
        for name in ("beta_start", "num_train_timesteps"):
            DDPMScheduler().save_pretrained(folder / "scheduler")
            change(folder / "scheduler" / "scheduler_config.json", **{name: value})
            with pytest.raises(BundleError, match="scheduler_config.json"):
                open_bundle(str(folder))


def test_what_of_a_pipeline_is_not_followed_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = saved_latent(tmp_path / "ldm")
    said = "timestep_spacing 'leading', steps_offset 1, set_alpha_to_one False"
    assert main(["bundles", "show", str(folder), "--json"]) == 0
    assert f"the scheduler's timesteps ({said}) are not used" in capfd.readouterr().out
    assert main(["bundles", "convert", "dpm", str(folder), "-o", str(tmp_path / "new")]) == 0
    assert said in capfd.readouterr().err
    assert said in (tmp_path / "new" / "README.md").read_text()


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("shards", [False, True])
def test_weights_in_variants_and_parts(safe: bool, variant: str | None, shards: bool, tmp_path: Path) -> None:
    folder = saved_latent(tmp_path / "ldm")
    kept = {}
    for name, kind in (("unet", UNet2DModel), ("vqvae", VQModel)):
        network: Any = kind.from_pretrained(folder / name)
        (folder / name / f"{STEM}.safetensors").unlink()
        network = network.half() if variant else network
        size = "20KB" if shards else "10GB"
        network.save_pretrained(folder / name, variant=variant, max_shard_size=size, safe_serialization=safe)
        kept[name] = {n: t.float() for n, t in network.state_dict().items()}
        num = sum(path.suffix in (".bin", ".safetensors") for path in (folder / name).iterdir())
        assert (num > 1) == shards
    if not safe:
        with pytest.raises(BundleError, match="these weights are pickled"):
            open_bundle(str(folder))
        assert main(["bundles", "convert", "dpm", str(folder), "-o", str(tmp_path / "new")]) == 0
        opened = open_bundle(str(tmp_path / "new"))
    else:
        opened = open_bundle(str(folder))
        said = {f"{name}: the weights are those of fp16" for name in ("unet", "vqvae")}
        assert (said <= set(opened.remarks)) == (variant is not None)
    model: Any = opened.model
    for ours, theirs in ((model.unet, kept["unet"]), (model.first_stage, kept["vqvae"])):
        state = ours.state_dict()
        assert all(torch.equal(state[name], theirs[name]) for name in theirs)
        assert {t.dtype for t in state.values() if t.is_floating_point()} == {torch.float32}
    if safe:  # every file counts in the digest, and a first stage of such files serves train lrdm
        some = sorted((folder / "unet").glob("*.safetensors"))[-1]
        tensors = load_file(some)
        save_file({name: t + 1 for name, t in tensors.items()}, some, {"format": "pt"})
        assert open_bundle(str(folder)).digest != opened.digest
        assert open_first_stage(str(folder)).network.state_dict().keys() == kept["vqvae"].keys()


def test_plain_weights_go_before_variants_and_fp16_before_others(tmp_path: Path) -> None:
    folder = saved(tmp_path) / "unet"
    plain = folder / f"{STEM}.safetensors"
    for variant in ("fp16", "ema"):
        (folder / f"{STEM}.{variant}.safetensors").write_bytes(plain.read_bytes())
    assert find_weights(folder).files == (plain,)
    plain.unlink()
    assert find_weights(folder).variant == "fp16"
    (folder / f"{STEM}.fp16.safetensors").rename(folder / f"{STEM}.bf16.safetensors")
    with pytest.raises(CheckpointError, match="weights of the variants bf16, ema"):
        find_weights(folder)
    (folder / f"{STEM}.ema.safetensors").unlink()
    assert find_weights(folder).variant == "bf16"


@pytest.mark.parametrize("where", ["../secret.safetensors", "/etc/passwd", 3, f"{STEM}.safetensors"])
def test_an_index_of_parts_leads_nowhere_else(where: Any, tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (folder / "unet" / f"{STEM}.safetensors").rename(folder / "secret.safetensors")
    index = folder / "unet" / f"{STEM}.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"conv_in.weight": where}}))
    with pytest.raises(BundleError, match="which is no part of the weights"):
        open_bundle(str(folder))
    part = f"{STEM}-00001-of-00002.safetensors"
    index.write_text(json.dumps({"weight_map": {"conv_in.weight": part}}))
    with pytest.raises(BundleError, match=f"{part}: this part of the weights is missing"):
        open_bundle(str(folder))


@pytest.mark.parametrize("size", [29, 30, (29, 29)])
def test_a_size_that_cannot_be_halved(size: Any, tmp_path: Path) -> None:
    levels = {"block_out_channels": (8, 8, 8), "down_block_types": ("DownBlock2D",) * 3,
              "up_block_types": ("UpBlock2D",) * 3}  # fmt: skip
    folder = saved(tmp_path, sample_size=size, **levels)
    with pytest.raises(BundleError, match=r"sample_size \d+: the network halves it 2 times"):
        open_bundle(str(folder))


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("unet", {"layers_per_block": 10**9}),
        ("unet", {"block_out_channels": [2**20, 2**20]}),
        ("unet", {"num_class_embeds": 10**12, "_rdm_class_label": 0}),
        ("unet", {"down_block_types": ["DownBlock2D"] * 10**5, "up_block_types": ["UpBlock2D"] * 10**5,
                  "block_out_channels": [8] * 10**5, "sample_size": 16}),
        ("vqvae", {"layers_per_block": 10**9}),
        ("vqvae", {"num_vq_embeddings": 10**12}),
        ("vae", {"layers_per_block": 10**9}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("safe", [True, False])
def test_a_network_is_not_built_much_larger_than_its_weights(
    part: str, changes: dict[str, Any], safe: bool, tmp_path: Path
) -> None:
    """A few bytes of configuration may describe any depth; without a limit this would take all memory."""
    folder = saved_latent(tmp_path / "ldm", "vae" if part == "vae" else "vqvae")
    if not safe:
        kind: Any = {"unet": UNet2DModel, "vqvae": VQModel, "vae": AutoencoderKL}[part]
        network = kind.from_pretrained(folder / part)
        (folder / part / f"{STEM}.safetensors").unlink()
        network.save_pretrained(folder / part, safe_serialization=False)
    change(folder / part / "config.json", **changes)
    with pytest.raises(CheckpointError, match=part):
        convert([folder])
    if safe:
        with pytest.raises(BundleError, match=part):
            open_bundle(str(folder))
        if part != "unet":
            with pytest.raises(BundleError, match=part):
                open_first_stage(str(folder))
