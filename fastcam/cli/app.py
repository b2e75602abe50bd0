"""The commands and their options; torch is imported only once one of them runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fastcam.cli.console import error
from fastcam.cli.options import (
    DATA,
    METHODS,
    METRICS,
    AsJson,
    Crop,
    Device,
    Layer,
    MaybeAddress,
    Model,
    Option,
    Precision,
    Runtime,
    Weights,
)


class Reporting(TyperGroup):
    """Prints what the library says is wrong as one line, without a traceback, and exits with 2."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except (ValueError, TypeError, OSError) as reason:
            if ctx.params.get("traceback") or isinstance(reason, BrokenPipeError):
                raise
            error(reason)
        except ModuleNotFoundError as reason:
            if reason.name != "PIL":
                raise
            error("pictures need Pillow: pip install 'fastcam[cli]'")
        raise typer.Exit(2) from None


app = typer.Typer(
    cls=Reporting,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        import fastcam

        typer.echo(f"fastcam {fastcam.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    traceback: Annotated[
        bool, typer.Option("--traceback", envvar="FASTCAM_TRACEBACK", help="Show where an error comes from.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Class activation maps, compiled: which parts of a picture a network looked at."""
    from fastcam import keep_freed_memory

    keep_freed_memory()


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for demo.png.")] = Path("fastcam-demo"),
    methods: Annotated[
        str | None, typer.Option(help="Names or wildcards, separated by commas (default: eight of them).")
    ] = None,
    device: Device = None,
) -> None:
    """Explain three bundled pictures by many methods; needs no network access."""
    from fastcam.cli import demo
    from fastcam.cli.arguments import find_methods

    demo.run(out, find_methods([methods] if methods else demo.METHODS), device)


@app.command()
def explain(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE", help="Files, globs or folders.", show_default=False)],
    model: Model = None,
    weights: Weights = None,
    method: Annotated[list[str], typer.Option(help=METHODS)] = ["gradcam"],  # noqa: B006
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-O", metavar="NAME=VALUE", help="Of the methods that have it."),
    ] = None,
    layer: Layer = None,
    target: Annotated[
        str | None, typer.Option(help="Class number, class name, or top3 (default: the predicted class).")
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option("--classes", exists=True, dir_okay=False, help="Text file, one class name a line."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("fastcam-out"),
    device: Device = None,
    precision: Precision = "float32",
    runtime: Runtime = "torch",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Masked pictures in one forward (default: as many as run well).")
    ] = None,
    crop: Crop = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Shorter side before cropping (default: the model's).")
    ] = None,
    interpolation: Annotated[str | None, typer.Option(help="bilinear, bicubic, … (default: the model's).")] = None,
    mean: Annotated[str | None, typer.Option(help="r,g,b in 0 to 1 (default: the model's).")] = None,
    std: Annotated[str | None, typer.Option(help="r,g,b in 0 to 1 (default: the model's).")] = None,
    colors: Annotated[str, typer.Option(help="turbo, jet, viridis, inferno or gray.")] = "turbo",
    alpha: Annotated[float, typer.Option(min=0, max=1, help="How much of the colors covers the picture.")] = 0.5,
    as_json: AsJson = False,
) -> None:
    """Explain pictures: overlays, panels, raw maps, and a line of JSON each."""
    from fastcam import CAM, image
    from fastcam.cli import arguments, classes, explain, models

    image.colormap(colors)
    found = arguments.find_methods(method)
    options = arguments.find_options(option or [], found)
    class_names = classes.read_names(names) if names else None
    if class_names is None and classes.is_name(target):
        class_names = classes.imagenet()
    wanted = classes.parse_target(target, class_names or ())
    loaded = models.load(
        model, weights, device,
        size=size, crop=crop, interpolation=interpolation, mean=_triple(mean), std=_triple(std),
    )  # fmt: skip
    batch = batch_size or loaded.batch or "auto"
    shared: dict[str, Any] = {"batch_size": batch, "precision": precision, "runtime": runtime}
    pixels = (loaded.preprocess.mean, loaded.preprocess.std)
    own = {name: arguments.normalized(options[name], name, *pixels) for name in found}
    cams = {name: CAM(loaded.model, name, _layers(layer), **shared, **own[name]) for name in found}
    job = explain.Job(loaded, cams, wanted, class_names, out, colors, alpha)
    raise typer.Exit(explain.run(arguments.find_pictures(images), job, as_json))


@app.command(cls=MaybeAddress)
def evaluate(
    data: Annotated[str, typer.Argument(metavar="DATA", show_default=False, help=DATA)],
    model: Model = None,
    weights: Weights = None,
    methods: Annotated[list[str], typer.Option("--methods", help=METHODS)] = ["gradcam"],  # noqa: B006
    metrics: Annotated[list[str], typer.Option("--metrics", help=METRICS)] = ["all"],  # noqa: B006
    protocol: Annotated[str, typer.Option(help="What papers disagree on; fastcam metrics names them.")] = "paper",
    option: Option = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("fastcam-evaluation"),
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first pictures (default: all).")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures in one forward.")] = 16,
    shard_size: Annotated[int, typer.Option(min=1, help="Pictures computed and kept together.")] = 16,
    layer: Layer = None,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first picture that cannot be used.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what another run left in --out.")] = False,
    resize: Annotated[
        str | None,
        typer.Option(
            help="crop, as the model wants it; warp: the whole picture to exactly the crop's size; or warp-crop: to "
            "the model's size, then its crop (default: the protocol's)."
        ),
    ] = None,
    crop: Crop = None,
    target: Annotated[
        str | None,
        typer.Option(help="Class to explain: predicted, label, or a number for all (default: the protocol's)."),
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Of the data set (default: seen from its files).")] = None,
    split: Annotated[str | None, typer.Option(help="Of the data set, where it has several.")] = None,
    class_index: Annotated[str | None, typer.Option(help="File that gives class names their numbers.")] = None,
    images: Annotated[str | None, typer.Option(help="Folder of the pictures, where DATA names them only.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Actors of --ray (default: one a GPU); else threads that read pictures.")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="[ADDRESS]", help="Compute on Ray: there, or started on this machine.")
    ] = None,
    max_memory: Annotated[str, typer.Option(help="Of masked forwards, above the bare one: 512MB, 2GB.")] = "256MB",
    device: Device = None,
    precision: Precision = "float32",
    runtime: Runtime = "torch",
    as_json: AsJson = False,
) -> None:
    """Evaluate methods on a data set; the same command again goes on where a run was stopped."""
    from fastcam.cli import arguments, evaluate
    from fastcam.cli.recipe import Recipe, absolute, choices

    recipe = Recipe(
        data=absolute(data), model=model, weights=weights and absolute(weights), limit=limit,
        class_index=class_index and absolute(class_index), images=images and absolute(images), kind=kind, split=split,
        crop=crop, layer=_layers(layer), seed=seed, batch_size=batch_size, shard_size=shard_size,
        max_memory=arguments.parse_bytes(max_memory), device=device, precision=precision, runtime=runtime,
        strict=strict, loaders=(workers if ray is None else None) or 2,
        **choices(methods, metrics, protocol, option or [], target, resize, seed),
    )  # fmt: skip
    raise typer.Exit(evaluate.run(evaluate.Run(recipe, out, overwrite, ray, workers, as_json)))


def _layers(text: str | None) -> str | list[str] | None:
    return text.split(",") if text and "," in text else text


def _triple(text: str | None) -> tuple[float, ...] | None:
    try:
        return tuple(float(number) for number in text.split(",")) if text else None
    except ValueError:
        raise ValueError(f"{text!r} is not three numbers; give one a channel, such as 0.5,0.5,0.5") from None


@app.command()
def methods(
    pattern: Annotated[str, typer.Argument(help="Name with wildcards.")] = "*", as_json: AsJson = False
) -> None:
    """List the methods: formula, what each asks of the model, cost, options, paper."""
    from fastcam.cli import tables

    tables.methods(pattern, as_json)


@app.command()
def metrics(
    pattern: Annotated[str, typer.Argument(help="Name with wildcards, or cheap.")] = "*", as_json: AsJson = False
) -> None:
    """List the metrics: formula, direction, range, protocols, cost, paper."""
    from fastcam.cli import tables

    tables.metrics(pattern, as_json)


@app.command()
def layers(
    model: Model = None,
    weights: Weights = None,
    device: Device = None,
    crop: Crop = None,
    as_json: AsJson = False,
) -> None:
    """List the layers that --layer may name, and mark the default."""
    from fastcam.cli import models, tables

    # The shapes do not depend on the weights, so there is no need to download any.
    random = "random" if weights is None and model and model.startswith(("timm:", "torchvision:")) else weights
    tables.layers(models.load(model, random, device, crop=crop), as_json)


@app.command(context_settings={"allow_interspersed_args": False})
def accelerate(
    script: Annotated[str, typer.Argument(metavar="SCRIPT", help="Python file, or module.", show_default=False)],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="For the script.", show_default=False)
    ] = None,
    module: Annotated[bool, typer.Option("-m", help="SCRIPT is the name of a module, as for python -m.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="The peers' own values where fastcam's differ and theirs do no harm.")
    ] = False,
) -> None:
    """Run a program written for pytorch-grad-cam or torchcam, unchanged, on fastcam."""
    from fastcam.cli import accelerate

    raise typer.Exit(accelerate.run(script, arguments or [], module, strict))


@app.command()
def env(as_json: AsJson = False) -> None:
    """Show versions, hardware, and which op runs on which backend."""
    from fastcam.cli import tables

    tables.env(as_json)
