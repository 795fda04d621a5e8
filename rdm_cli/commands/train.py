"""rdm train: methods, priors and attributes."""

from __future__ import annotations

from rdm_cli.commands import train_codes, train_method
from rdm_cli.help_page import App

app = App(
    no_args_is_help=True,
    help="""Train a method on images, or a prior or attributes on codes.

Examples:
    rdm train diffae faces/ -o my-bundle --preset small64 --minutes 60
    rdm train attributes codes/ --labels metadata.csv -b my-bundle
""",
)
app.command("diffae")(train_method.training_command("diffae", "a Diff-AE"))
app.command("dpm")(train_method.training_command("dpm", "a plain diffusion model, without an encoder,"))
app.command("pdae")(
    train_method.training_command("pdae", "an encoder for a pretrained diffusion model (PDAE)", around="dpm")
)
app.command("lrdm")(
    train_method.training_command(
        "lrdm", "a latent diffusion model with a representation (LRDM)", around="first-stage"
    )
)
app.command("first-stage")(
    train_method.training_command(
        "first-stage", "the first stage of an LRDM, an autoencoder,", around="nothing"
    )
)
app.command("prior")(train_codes.prior)
app.command("attributes")(train_codes.attributes)
