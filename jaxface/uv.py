"""What both UV-photo Nets do with whole photographs: patches to learn from, judgement, a user's pictures.

The networks translate patches; everything here is what surrounds them, on the host: which photographs
there are, how patches of one are put back together (Kojima et al. 2021, 10.1038/s41598-020-79995-4), and
how spots on the result are counted beside those of the real UV photograph.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxface.data import photos
from jaxface.data.images import list_images, read_image
from jaxface.data.pipeline import Drawn, NobodyError
from jaxface.errors import UserError
from jaxface.faces import regions
from jaxface.faces.portrait import Portrait, portrait
from jaxface.metrics import agreement, likeness, overlap, spot_ratios, spots
from jaxface.ops import tiles
from jaxface.ops.warp import window_for
from jaxface.system import Export, Figure, Reading, Record, Result, RunConfig, System, started

SAME_SCALE = 1.25  # a face this much wider or narrower than those of the training is scaled to them
TOO_SMALL = 2.0  # a face this many times narrower is shown, but its spots are not counted
DETAIL = 16  # px a side of the blocks whose mean `losses.detail` takes out
FOLLOWED = 12  # held-out people that training is followed on
GUARD = 0.01  # face widths around a real spot in which a found one is not called invented
WIDTH = 1600  # px of the picture for the patient
BATCH = 8  # tiles a network call translates


@dataclasses.dataclass
class PhotoConfig(RunConfig):
    """What a run that translates photographs has besides its method."""

    # Data
    data: str = "phantom_uvphoto"  # a data set, or several joined by +
    num_subjects: int = 0  # people of a phantom, 0: its own default
    side: int = 1024  # px of a phantom's photographs
    manifest: str = ""  # of a user's folder; "": manifest.csv in it
    purpose: str = "research"  # what the subjects in the manifest must have consented to
    ledger: str = ""  # folder of a consent ledger, which then decides; "": `consent` in data_dir
    max_bad_fraction: float = 0.001  # unreadable photographs of a user's folder that are left out
    shift: bool = False  # move UV photographs that lie a little off instead of leaving them out
    # Patches
    patch: int = 256  # px a side (the paper's)
    stride: int = 128  # px between the patches to choose from (the paper's overlap: not known)
    coverage: float = 0.5  # share of skin a patch must have (the paper: "enough")
    per_photo: int = 1  # patches in a row from one photograph; more spares reading large ones
    warp: float = 0.5  # chance that a patch is turned and scaled a little, besides mirrored
    kpatches: float = (
        256.0  # thousand patches shown: 200 epochs of 160 people, 8 patches each (ours)
    )
    # Networks; G makes UV patches, P2P = the published settings of pix2pix
    levels: int = 8  # times G halves a patch (P2P: 8 at 256 px)
    ngf: int = 64  # filters of G's outermost level (P2P)
    norm: str = (
        "batch"  # of G and of the discriminator of pairs (P2P); "instance" for batches of one
    )
    init_type: str = "normal"  # of G (P2P); "kaiming" carries fine detail sooner
    dropout: bool = (
        True  # in the three blocks of G around the innermost (P2P); acts from 6 levels on
    )
    ndf: int = 64  # filters of a discriminator's first layer (P2P)
    precision: str = "float32"  # "bfloat16": convolutions of all networks
    # Optimisation
    lambda_l1: float = 100.0  # P2P
    lambda_detail: float = 0.0  # squares of what is finer than DETAIL px (ours; 0 is plain pix2pix)
    learning_rate: float = 2e-4  # P2P, Adam with b1 = 0.5, b2 = 0.999
    constant: float = (
        0.5  # share of the training before the rate falls to 0 (P2P: 100 of 200 epochs)
    )
    # Whole photographs
    tile_stride: int = 64  # px between the tiles of a translated photograph
    margin: int = 16  # px along a tile's border that are not used

    @property
    def num_steps(self) -> int:
        return max(1, round(self.kpatches * 1000 / self.batch))


def check_choice(config, name: str, allowed: tuple) -> None:
    """Raises UserError unless a field has one of the allowed values."""
    if getattr(config, name) not in allowed:
        raise UserError(
            f"config.{name}={getattr(config, name)!r}: use one of {', '.join(map(repr, allowed))}."
        )


def check(config: PhotoConfig) -> None:
    """Raises UserError for settings that no translation can use, before anything is read."""
    check_choice(config, "compile", ("jit", "pmap"))
    check_choice(config, "precision", ("float32", "bfloat16"))
    check_choice(config, "accumulate", (1,))  # batches of patches are small
    check_choice(config, "norm", ("batch", "instance"))
    check_choice(config, "init_type", ("normal", "kaiming"))
    for name in ("levels", "ngf", "ndf", "stride", "per_photo"):
        if getattr(config, name) < 1:
            raise UserError(f"config.{name}={getattr(config, name)}: use 1 or more.")
    if config.norm == "batch" and config.batch == 1:
        raise UserError("config.batch=1 has no batch statistics: use config.norm=instance.")
    if config.patch % 2**config.levels:
        raise UserError(
            f"config.patch={config.patch} cannot be halved config.levels={config.levels} times: use a "
            f"multiple of {2**config.levels}."
        )
    if config.patch % DETAIL or config.patch < 64:
        raise UserError(
            f"config.patch={config.patch}: patches have a side of 64 px or more, a multiple of {DETAIL}."
        )
    if not 0 < config.coverage <= 1:
        raise UserError(f"config.coverage={config.coverage}: a share of skin over 0 and up to 1.")
    if not 0 < config.tile_stride <= config.patch - 2 * config.margin:
        raise UserError(
            f"config.tile_stride={config.tile_stride} leaves gaps: tiles of config.patch={config.patch} px "
            f"without config.margin={config.margin} px on each side need at most "
            f"{config.patch - 2 * config.margin}."
        )


# ---- inside the step ------------------------------------------------------------------------


def scaled(levels: jax.Array) -> jax.Array:
    """8-bit levels -> [-1, 1], in float32 at least."""
    return levels.astype(jnp.promote_types(levels.dtype, jnp.float32)) / 127.5 - 1


def no_facts() -> dict[str, jax.Array]:
    """What a translator must know of its training photographs to be used without them."""
    return {name: jnp.zeros([], jnp.float32) for name in ("face_width", "spot_threshold")}


def remembered(state) -> dict[str, float]:
    """`facts` of the photographs that a state was trained on."""
    return {name: float(value) for name, value in state.control["photographs"].items()}


def facts(batch: dict) -> dict[str, jax.Array]:
    """Takes them from a batch, each row of which tells them."""
    return {name: batch[name][0].astype(jnp.float32) for name in no_facts()}


def begin_with(state, start: dict):
    """`state` with the networks of `start`, as far as it has them.

    Raises:
      UserError: lists every name and shape that differs; `start` has no generator.
    """
    if "generator" not in start.get("params", {}):
        raise UserError("--init_from: there is no generator in it that translates photographs.")
    params, stats = started(state.params, state.model_state, start)
    state = state.replace(params=params, model_state=stats)
    if "begun" in state.control:
        state = state.replace(control=state.control | {"begun": generator_of(state)})
    return state


def generator_of(state) -> dict:
    """{"params", "model_state"} of the generator alone."""
    return {
        "params": state.params["generator"],
        "model_state": state.model_state["generator"],
    }


def statistics(variables) -> dict:
    """What normalisation keeps; {} where nothing is kept."""
    return variables.get("batch_stats", {})


@functools.partial(jax.jit, static_argnames=("module", "axis"))  # traced once for all its passes
def run(module, params, stats, x, key, example, axis):
    """A network in training mode: its result and its statistics moved by the batch.

    Args:
      key, example: of its dropout, as `layers.Dropout` takes them.
      axis: pmap axis, or None.
    """
    y, moved = module.apply(
        {"params": params, "batch_stats": stats},
        x,
        train=True,
        axis=axis,
        example=example,
        mutable=["batch_stats"],
        rngs={"dropout": key},
    )
    return y, statistics(moved)


# ---- photographs ----------------------------------------------------------------------------


class Photographs:
    """The photographs of a run; opened when first needed."""

    def __init__(self, config: PhotoConfig):
        self.config = config

    @functools.cached_property
    def paired(self) -> photos.Photos:
        """Those to train on that have a UV photograph."""
        return photos.open_photos(self.config, "train", paired=True)

    @functools.cached_property
    def unpaired(self) -> photos.Photos:
        """Those to train on that have none."""
        return photos.open_photos(self.config, "train", paired=False)

    def held_out(self, paired: bool) -> photos.Photos | None:
        """Those of people nobody trained on; None if there are none."""
        try:
            return photos.open_photos(self.config, "heldout", paired=paired)
        except NobodyError:
            return None

    def open(self, phones: bool = False) -> dict:
        """Reads what is needed before anything is compiled; nothing of it stays on the device.

        Raises:
          UserError: no pairs to train on, or (asked for `phones`) nothing but pairs.
        """
        _ = self.known, self.unpaired if phones else None
        return {}

    @functools.cached_property
    def known(self) -> dict[str, np.float32]:
        """`facts` of the training photographs: median face width, threshold of the spot detector."""
        found = self.paired
        images = (found.uv(i) for i in range(len(found)))
        masks = (found.mask(i) for i in range(len(found)))
        detector = spots.fit(images, found.labels["face_width"], masks)
        return {
            "face_width": np.float32(np.median(found.labels["face_width"])),
            "spot_threshold": np.float32(detector.threshold),
        }

    @functools.cached_property
    def color_detector(self) -> spots.Detector:
        """The same detector with the threshold of the blue channel: the baseline's best case."""
        found = self.paired
        images = (blue(found.color(i)) for i in range(len(found)))
        masks = (found.mask(i) for i in range(len(found)))
        return spots.fit(images, found.labels["face_width"], masks)

    def _cut(self, found, batch, seed, start, process_index, process_count) -> photos.PatchBatches:
        config = self.config
        return photos.PatchBatches(
            found,
            batch,
            config.patch,
            stride=config.stride,
            coverage=config.coverage,
            window=window_for(config.patch),
            per_photo=config.per_photo,
            seed=seed,
            start=start,
            process_index=process_index,
            process_count=process_count,
        )

    def pairs(self, start: int, process_index: int = 0, process_count: int = 1) -> Iterator[dict]:
        """Batches of windows of both photographs, with `facts` in each row."""
        config = self.config
        cut = self._cut(self.paired, config.batch, config.seed, start, process_index, process_count)
        for batch in cut:
            rows = len(batch["example"])
            yield batch | {name: np.full(rows, value) for name, value in self.known.items()}

    def pairs_and_phones(
        self, every: int, start: int, process_index: int = 0, process_count: int = 1
    ) -> Iterator[dict]:
        """`pairs`; each `every`-th, from the first on, with as many unpaired windows, as "phone"."""
        config, first = self.config, -(-start // every)
        phones = self._cut(
            self.unpaired, config.batch, config.seed + 1, first, process_index, process_count
        )
        for step, batch in enumerate(self.pairs(start, process_index, process_count), start):
            yield batch | ({} if step % every else {"phone": next(phones)["color"]})

    @functools.cached_property
    def _paired_people(self) -> frozenset[tuple[str, str]]:
        return frozenset(pair for i in range(len(self.paired)) for pair in self.paired.who(i))

    @functools.cached_property
    def _phones_drawn(self) -> Drawn:
        config, found = self.config, self.unpaired
        cut = self._cut(found, config.batch, config.seed + 1, 0, 0, 1)
        return Drawn(cut.drawn, found.who, len(found) - len(cut.left_out))

    def consumed(self, every: int, step: int) -> frozenset[tuple[str, str]]:
        """Whose photographs a state depends on after `step` steps (`System.consumed`).

        Every pair from the first step on: its face width and its spots are in `known`, which goes into each
        batch and is remembered. Of those without a partner, the ones that were cut so far, in every
        `every`-th step from the first on (0: never). Held-out people are measured and steer nothing.
        """
        if step < 1:
            return frozenset()
        return self._paired_people | (self._phones_drawn(-(-step // every)) if every else set())

    def _first(self, found, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The first pairs of patches that are cut, uint8 [N, P, P, 3] and [N, P, P, 1]."""
        batch = next(self._cut(found, number, self.config.seed, 0, 0, 1))
        room = (window_for(self.config.patch) - self.config.patch) // 2
        inside = slice(room, room + self.config.patch)
        return batch["color"][:, inside, inside], batch["uv"][:, inside, inside]

    def preview(self) -> Figure:
        """16 pairs of patches as they are cut."""
        config, found = self.config, self.paired
        tiles_ = []
        for color, uv in zip(*self._first(found, 16)):
            tiles_ += [color, np.repeat(uv, 3, -1)]
        people = len(np.unique(found.labels["subject"]))
        caption = f"Training pairs ({config.data}, {people} people): color patch, UV patch."
        return Figure(np.stack(tiles_), 8, caption, photographs=True)

    # ---- around a method ----

    def system(
        self,
        init: Callable,
        train_step: Callable,
        generator: Callable,
        *,
        phones: int = 0,
        start: dict | None = None,
        rivals: dict[str, dict] | None = None,
        keep: float = 0.0,
    ) -> System:
        """A method with what surrounds every translator: judgement, pictures, files.

        Args:
          init, train_step: the method, as in `System`; its state has a "generator".
          generator: (variables, color patches [N, P, P, 3]) -> UV patches [N, P, P, 1].
          phones: batches from one with photographs that have no partner to the next; 0: none has.
          start: what config.init_from names, read: {"params": ..., "model_state": ...}.
          rivals: {suffix: the same of another run} that are measured beside it on the same people.
          keep: share of the generator that the run began with (in control["begun"]) in the one that is used.
        """
        infer = jax.jit(generator)

        def networks_of(state):
            trees = {"params": state.params, "model_state": state.model_state}
            if not keep:
                return trees
            mixed = jax.tree.map(
                lambda old, new: keep * old + (1 - keep) * new,
                state.control["begun"],
                generator_of(state),
            )
            return {name: trees[name] | {"generator": mixed[name]} for name in trees}

        def translator(networks):
            stats = networks["model_state"].get("generator", {})
            variables = {"params": networks["params"]["generator"], "batch_stats": stats}
            return lambda patches: infer(variables, patches)

        def ours(state):
            return translator(networks_of(state))

        def judge(state, key):
            others = {
                name: translator({"model_state": {}} | tree)
                for name, tree in (rivals or {}).items()
            }
            return self.judge(state, ours(state), others)

        def export(state):
            takes = {"color": (self.config.patch, self.config.patch, 3)}
            return Export(networks_of(state), {"generator": (ours(state), takes)})

        return System(
            init=init,
            train_step=train_step,
            batches=functools.partial(self.pairs_and_phones, phones) if phones else self.pairs,
            evals={"spots": judge},
            monitors={"spots": lambda state, key: self.follow(state, ours(state))},
            sample=lambda state, key, number, label="": self.sample(ours(state), number),
            readings=lambda state, path: self.readings(state, ours(state), path),
            export=export,
            resident=lambda: self.open(bool(phones)),
            preview=self.preview,
            start_from=(lambda state: begin_with(state, start)) if start else None,
            consumed=functools.partial(self.consumed, phones),
        )

    # ---- a whole photograph ----

    def translate(self, network: Callable, color: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """A photograph's UV photograph where `keep` says: uint8 [H, W, 3], bool [H, W] -> uint8 [H, W]."""
        if not keep.any():
            return np.zeros(keep.shape, np.uint8)
        config = self.config
        result = tiles.translate(
            network,
            color,
            tile=config.patch,
            stride=config.tile_stride,
            margin=config.margin,
            batch=BATCH,
            keep=keep,
        )[..., 0]
        return np.where(keep, levels_of(result), 0)

    # ---- judgement ----

    def measure(
        self, found: photos.Photos, index: int, network: Callable, known: dict, whole: bool
    ):
        """Spot ratios of one held-out photograph: real, translated and straight on the color one.

        Returns ({column: number}, what was seen: dict of arrays).
        """
        color, uv, mask = found.color(index), found.truth_uv(index), found.mask(index)
        width = float(found.labels["face_width"][index])
        right, left = regions.cheeks(found.landmarks(index), *mask.shape)
        cheeks = (right | left) & mask
        # Spots are judged by the skin around them: a little more than the cheeks is translated.
        near = cv2.dilate(cheeks.astype(np.uint8), np.ones([round(0.15 * width)] * 2)).astype(bool)
        keep = mask if whole else near & mask
        fake = self.translate(network, color, keep)
        detect = spots.Detector(float(known["spot_threshold"]))
        seen = {
            "real": detect(uv, width, mask) if uv is not None else None,
            "translated": self._within(detect, fake, width, mask, keep),
            "color": self.color_detector(blue(color), width, mask),
        }
        ratios = {
            name: spots.spot_ratio(found_, cheeks)
            for name, found_ in seen.items()
            if found_ is not None
        }
        truth = found.pigment(index)
        if truth is not None:
            ratios["pigment"] = spots.spot_ratio(truth, cheeks)
        return ratios, seen | {
            "uv": uv,
            "fake": fake,
            "mask": mask,
            "cheeks": cheeks,
            "width": width,
        }

    def _within(self, detect, fake, width, mask, keep):
        """Spots of a partly translated photograph, by the detector's rules for the whole skin."""
        if keep is mask:
            return detect(fake, width, mask)
        if not keep.any():
            return keep
        filled = np.where(keep, fake, np.uint8(np.median(fake[keep])))
        return detect(filled.astype(np.uint8), width, mask) & keep

    def judge(self, state, network: Callable, rivals: dict[str, Callable] | None = None) -> dict:
        """Everything an evaluation reports of a translator.

        Args:
          rivals: {suffix: network} of other translators that are measured on the same people.
        """
        known = remembered(state)
        results, tables, shown = {}, [], []
        for kind, paired in (("device", True), ("phone", False)):
            found = self.held_out(paired)
            if found is None or all(found.truth_uv(i) is None for i in range(len(found))):
                continue
            table = [
                self.measure(found, i, network, known, whole=paired) for i in range(len(found))
            ]
            rows = [row for row, _ in table]
            others = {
                name: [
                    self.measure(found, i, rival, known, whole=False)[0] for i in range(len(found))
                ]
                for name, rival in (rivals or {}).items()
            }
            subjects = found.labels["subject"]
            results |= spot_ratios.correlations(rows, others, subjects, kind)
            if paired:
                results |= self._device_only(found, table, network)
                results |= spot_ratios.by_tone(rows, subjects, found.labels["ita"])
                shown = [(found.color(i), seen) for i, (_, seen) in enumerate(table)]
            tables += [
                {"id": found.labels["id"][i], "subject": subjects[i], "device": kind}
                | row
                | {f"translated_{name}": values[i]["translated"] for name, values in others.items()}
                for i, row in enumerate(rows)
            ]
        if not tables:
            return {}
        results["spot_ratios"] = Record(
            lambda workdir, of: spot_ratios.write_table(workdir, tables)
        )
        results |= spot_ratios.figures(tables)
        if shown:
            results["translations"] = spot_ratios.gallery(shown)
        return results

    def _device_only(self, found, table, network) -> dict[str, Result]:
        """Pixel by pixel, in the skin of held-out people who have a real UV photograph."""
        subjects = found.labels["subject"]
        values: dict[str, list] = {}
        for _, seen in table:
            real, ours, mask = seen["real"], seen["translated"], seen["mask"]
            same = overlap.match(ours, real, mask, seen["width"])
            like = likeness.likeness(seen["fake"], seen["uv"], mask)
            one = {f"skin_{name}": value for name, value in like._asdict().items()} | {
                "spot_dice": overlap.dice(ours, real, mask),
                "spot_iou": overlap.iou(ours, real, mask),
                "spot_precision": same.precision,
                "spot_recall": same.recall,
                "hallucination": overlap.hallucination(ours, real, mask, GUARD * seen["width"]),
            }
            for name, value in one.items():
                values.setdefault(name, []).append(value)
        results = {
            name: spot_ratios.mean_of_people(np.array(v), subjects) for name, v in values.items()
        }
        config, few = self.config, range(min(len(found), 4))
        seams = [
            tiles.seam_error(
                network,
                found.color(i),
                tile=config.patch,
                stride=config.tile_stride,
                margin=config.margin,
                batch=BATCH,
                keep=found.mask(i),
                align=min(2**config.levels, config.tile_stride // 2),
            )
            for i in few
        ]
        results["seam_error"] = Result(
            float(np.mean(seams)),
            n=len(few),
            unit="8-bit levels",
            protocol="root mean square between two tilings shifted by half a stride, inside the skin",
        )
        return results

    def follow(self, state, network: Callable) -> dict[str, Result]:
        """The correlation alone, on a few held-out people: cheap enough to follow training."""
        found = self.held_out(True)
        if found is None:
            return {}
        known = remembered(state)
        count = min(FOLLOWED, len(found))
        rows = [self.measure(found, i, network, known, whole=False)[0] for i in range(count)]
        pick = lambda name: np.array([row[name] for row in rows])
        subjects = found.labels["subject"][:count]
        return {
            "spot_ratio_r_training": agreement.pearson(pick("translated"), pick("real"), subjects)
        }

    def sample(self, network: Callable, number: int) -> Figure:
        """Held-out patches: color, translated, real UV, difference (gray: none)."""
        found = self.held_out(True) or self.paired
        color, real = self._first(found, max(1, number // 4))
        fakes = []
        for i in range(0, len(color), BATCH):
            some = scaled_host(color[i : i + BATCH])
            fakes.append(np.asarray(network(_padded(some, BATCH)))[: len(some)])
        fake = levels_of(np.concatenate(fakes))
        apart = np.clip(127 + fake.astype(int) - real.astype(int), 0, 255).astype(np.uint8)
        parts = []
        for quadruple in zip(color, fake, real, apart):
            parts += [np.broadcast_to(x, (*x.shape[:2], 3)) for x in quadruple]
        caption = "Patches of held-out people: color, translated, real UV, their difference."
        return Figure(np.stack(parts), 8, caption, photographs=True)

    # ---- a user's photographs ----

    def readings(
        self, state, network: Callable, path: str | pathlib.Path
    ) -> Iterator[tuple[str, Reading | UserError]]:
        """Translates a photograph or a folder of them and counts spots; bad files come as errors."""
        path = pathlib.Path(path)
        names = list_images(path) if path.is_dir() else [path.name]
        folder = path if path.is_dir() else path.parent
        known = remembered(state)
        for name in names:
            try:
                image = read_image(folder / name)
                yield name, self.read(image, network, known)
            except UserError as error:
                yield name, error

    def read(self, image: np.ndarray, network: Callable, known: dict) -> Reading:
        """One photograph, uint8 [H, W, 3] in any size: its UV photograph and its spots.

        Raises:
          UserError: no face, or a face too small for one patch.
        """
        config = self.config
        face = portrait(image)
        scale, warnings = 1.0, list(face.warnings)
        ratio = known["face_width"] / face.face_width
        if face.face_width < config.patch / 2:
            raise UserError(
                f"the face is {face.face_width:.0f} px wide, and a patch of {config.patch} px would show "
                f"more than skin: use a photograph with a face of at least {config.patch // 2} px."
            )
        if not 1 / SAME_SCALE <= ratio <= SAME_SCALE:
            scale = ratio
            lost = "the finest detail was not used" if ratio < 1 else "small spots may not show"
            warnings.append(
                f"The face is {face.face_width:.0f} px wide, in the training photographs it was "
                f"{known['face_width']:.0f} px: the picture was scaled by {ratio:.2f}, and {lost}."
            )
        small, mask = image, face.mask
        if scale != 1:
            size = [max(1, round(n * scale)) for n in image.shape[1::-1]]
            method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            small = cv2.resize(image, size, interpolation=method)
            mask = _sized(mask, size)
        if not mask.any():
            raise UserError("no bare skin was found in the face: hair, glasses or a hand cover it.")
        fake = self.translate(network, small, mask)
        width = face.face_width * scale
        found = spots.Detector(known["spot_threshold"])(fake, width, mask)
        right, left = (
            cheek & mask for cheek in regions.cheeks(face.landmarks * scale, *mask.shape)
        )
        if scale != 1:
            back = image.shape[1::-1]
            fake = cv2.resize(fake, back, interpolation=cv2.INTER_LINEAR)
            found, right, left = (_sized(x, back) for x in (found, right, left))
        numbers = {
            "spot_ratio_right_cheek": spots.spot_ratio(found, right),
            "spot_ratio_left_cheek": spots.spot_ratio(found, left),
            "spots": cv2.connectedComponents(found.astype(np.uint8))[0] - 1,
        }
        if ratio > TOO_SMALL:
            warnings.append(
                "Spots were not counted: in a photograph this small most of them cannot be seen, and what "
                "the network draws in their place is invented."
            )
            found, numbers = np.zeros_like(found), dict.fromkeys(numbers, "not measured")
        numbers |= {
            "face_width_px": round(face.face_width),
            "skin_covered": round(face.covered, 3),
        }
        overlay = outlined(image, found)
        pictures = {
            "uv": fake,
            "overlay": overlay,
            "side_by_side": side_by_side(image, fake, overlay, face),
        }
        return Reading(pictures, numbers, tuple(warnings))


def _sized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool [H, W] at another (width, height)."""
    return cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0


def blue(color: np.ndarray) -> np.ndarray:
    """The channel that melanin darkens most: uint8 [H, W, 3] -> [H, W]."""
    return color[..., 2]


def scaled_host(levels: np.ndarray) -> np.ndarray:
    return levels.astype(np.float32) / 127.5 - 1


def levels_of(values: np.ndarray) -> np.ndarray:
    """[-1, 1] -> 8-bit levels."""
    return np.clip(np.rint(values * 127.5 + 127.5), 0, 255).astype(np.uint8)


def _padded(patches: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([patches, np.repeat(patches[:1], rows - len(patches), 0)])


# ---- pictures for a user ---------------------------------------------------------------------


def outlined(image: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The photograph with the rim of every spot drawn on it."""
    thick = max(1, round(min(image.shape[:2]) / 700))
    kernel = np.ones([2 * thick + 1] * 2, np.uint8)
    wide = cv2.dilate(found.astype(np.uint8), kernel)
    rim = (wide > 0) & ~found
    result = image.copy()
    result[rim] = (220, 40, 40)
    return result


def side_by_side(
    image: np.ndarray, uv: np.ndarray, overlay: np.ndarray, face: Portrait
) -> np.ndarray:
    """One picture for the patient: photograph, estimated UV photograph, spots, around the face."""
    x, y = face.landmarks[:, 0], face.landmarks[:, 1]
    room = 0.12 * face.face_width
    top, bottom = (int(np.clip(v, 0, image.shape[0])) for v in (y.min() - room, y.max() + room))
    left, right = (int(np.clip(v, 0, image.shape[1])) for v in (x.min() - room, x.max() + room))
    panel = (WIDTH - 2 * 16) // 3
    height = max(1, round((bottom - top) * panel / max(1, right - left)))
    canvas = Image.new("RGB", (WIDTH, height + 56), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(26)
    titles = ("Photograph", "Estimated UV photograph", "Spots found")
    for k, (title, picture) in enumerate(zip(titles, (image, uv, overlay))):
        cut = picture[top:bottom, left:right]
        shrinks = cut.shape[1] > panel
        method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        cut = Image.fromarray(cv2.resize(cut, (panel, height), interpolation=method)).convert("RGB")
        canvas.paste(cut, (k * (panel + 16), 56))
        draw.text((k * (panel + 16) + 4, 12), title, fill="black", font=font)
    return np.asarray(canvas)
