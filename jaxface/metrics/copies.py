"""Does a generator repeat the people it was trained on? An audit that measures itself.

Published copy scores miss a few copies among thousands of samples (dgm-eval, Stein et al. 2023, says so
of its own), so every audit plants copies and tells how many it found, and tries photographs that cannot
be copies and tells how many it took for one.

A copy is a sample whose nearest person is far nearer than the next. With d_1 <= d_2 <= ... its
distances to the people, the spacings j ln(d_{j+1} / d_j) of a sample that copies nobody are independent
and exponential with one mean: where people are evenly dense, the volumes of the balls that reach them
are a Poisson process; for the smallest of many distances of any light-tailed kind, by Renyi's
representation. So the first spacing over the mean of the next K follows F(2, 2K), whatever the scale,
and no labelled copies are needed. A copy moves the first spacing only.
"""

import argparse
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import scipy

from jaxface.errors import UserError
from jaxface.metrics.frames import COPIED, GENERATED, framed
from jaxface.metrics.neighbours import distance_rows
from jaxface.metrics.patches import patch_features
from jaxface.system import Figure, Result

LEVEL = 0.01  # chance that an audit of samples without a copy raises a flag
SPACINGS = 100  # K at most; a quarter of the people where they are few
MIN_PEOPLE = 12
# Quantiles of all samples that fix the scale: a twentieth of copies among them moves these little.
CALM = (0.5, 0.8)
LOWPASS = 16  # px of the pixel embedding's side
WHITE = 128  # principal components that it is whitened to
# People look alike in pixels more often than the law says: in 22 of 80 audits of rendered people without
# copies somebody lay beyond the limit, by a factor of 1.31 at most; with this one nobody did in 40 others.
MARGIN = 1.4
SHARES = (0.001, 0.01, 0.05)  # of the samples replaced by copies when power is measured
PLANTED = 60  # copies of each kind
KINDS = ("exact", "mirrored", "jpeg", "blended")
JPEG_QUALITY = 60
SHOWN = 25  # worst pairs
REVIEW = "copies_review.json"
VERDICTS = ("copy", "no copy")


# ---- statistic ----------------------------------------------------------------------------------


class Match(NamedTuple):
    """How each of M samples stands to the people."""

    spacing: np.ndarray  # [M] ln(d_2 / d_1) over the mean of the next K spacings
    ratio: np.ndarray  # [M] d_1 / d_2: nearest person over second nearest
    photograph: np.ndarray  # [M] index of the nearest photograph
    mirrored: np.ndarray  # [M] whether its mirror image is the nearer one
    nearest: np.ndarray  # [M] d_1, in feature units
    spacings: int  # K


def match(
    samples: np.ndarray,
    training: np.ndarray,
    mirrored: np.ndarray,
    subjects: np.ndarray,
    own: np.ndarray | None = None,
) -> Match:
    """Finds the nearest people of samples, among photographs and their mirror images.

    Args:
      samples: features [M, D].
      training, mirrored: features [N, D] of the photographs and of their mirror images.
      subjects: person [N] of each photograph.
      own: person [M] whom a sample is not compared with, because it is a photograph of them.

    Raises:
      ValueError: less than MIN_PEOPLE people to compare with.
    """
    names, person = np.unique(np.asarray(subjects), return_inverse=True)
    people = len(names) - (own is not None)
    if people < MIN_PEOPLE:
        raise ValueError(f"a copy audit needs {MIN_PEOPLE} people to compare with, got {people}")
    k = min(SPACINGS, people // 4)
    order = np.argsort(person, kind="stable")
    first = np.searchsorted(person[order], np.arange(len(names)))
    parts = []
    for (rows, straight), (_, turned) in zip(
        distance_rows(samples, np.asarray(training)[order]),
        distance_rows(samples, np.asarray(mirrored)[order]),
    ):
        distance = np.minimum(straight, turned)
        if own is not None:
            distance[np.asarray(own)[rows, None] == names[person[order]]] = np.inf
        at = distance.argmin(1)
        by_person = np.minimum.reduceat(distance, first, axis=1)
        d = np.sort(np.partition(by_person, k + 1, axis=1)[:, : k + 2], axis=1)
        # A distance of zero has no logarithm: a millionth of the next is as surely a copy.
        d = np.maximum(d, 1e-6 * np.maximum(d[:, 1:2], 1e-12))
        gaps = np.diff(np.log(d), axis=1) * np.arange(1, k + 2)
        each = np.arange(len(at))
        parts.append(
            (
                gaps[:, 0] / np.maximum(gaps[:, 1:].mean(1), 1e-9),
                d[:, 0] / d[:, 1],
                order[at],
                turned[each, at] < straight[each, at],
                d[:, 0],
            )
        )
    return Match(*(np.concatenate(column) for column in zip(*parts)), spacings=k)


def limit(spacing: np.ndarray, spacings: int, level: float = LEVEL) -> float:
    """The spacing from which a sample is flagged: once in 1 / `level` audits without copies.

    People are not evenly dense, and spacings of real features come out up to a third shorter or
    longer than F says: they are scaled by as much as they do at the quantiles CALM of all samples.

    Args:
      spacing: of all samples [M].
      spacings: K of the Match.
      level: shared among the M samples (Bonferroni).
    """
    null = scipy.stats.f(2, 2 * spacings)
    scale = max(np.quantile(spacing, q) / null.ppf(q) for q in CALM)
    return float(scale * null.isf(level / len(spacing)))


# ---- embeddings ---------------------------------------------------------------------------------


def lowpass(images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C] -> [N, LOWPASS² C]: averaged pixels, brightness and contrast taken out."""
    small = [cv2.resize(one, (LOWPASS, LOWPASS), interpolation=cv2.INTER_AREA) for one in images]
    x = np.asarray(small, np.float64).reshape(len(images), LOWPASS**2, -1)
    x = x - x.mean(1, keepdims=True)
    x = x / (np.sqrt(np.square(x).mean((1, 2), keepdims=True)) + 1e-6)
    return x.reshape(len(images), -1)


def features(images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C] -> [N, 1536]: MobileNetV2's 13th block, averaged over a 4x4 grid.

    Pooled over the whole picture, its features no longer know a photograph after JPEG or blending.
    """
    (x,) = patch_features(images, ("block13",))
    return x.reshape(len(x), 4, 2, 4, 2, -1).mean((2, 4)).reshape(len(x), -1)


class _Space:
    """One embedding, with the training photographs and their mirror images in it."""

    def __init__(self, name, embed, training: np.ndarray, white: int = 0, margin: float = 1.0):
        self.name, self._embed, self._white = name, embed, None
        self._margin = margin
        x, y = embed(training), embed(training[:, :, ::-1])
        if white:
            both = np.concatenate([x, y])
            self._mean = both.mean(0)
            _, spread, axes = np.linalg.svd(both - self._mean, full_matrices=False)
            kept = min(white, int((spread > 1e-6 * spread[0]).sum()), len(training) - 1)
            self._white = axes[:kept].T * (np.sqrt(len(both)) / spread[:kept])
        self.training, self.mirrored = self._project(x), self._project(y)

    def _project(self, x: np.ndarray) -> np.ndarray:
        return x if self._white is None else (x - self._mean) @ self._white

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self._project(self._embed(images))

    def limit(self, spacing: np.ndarray, spacings: int) -> float:
        return self._margin * limit(spacing, spacings, LEVEL / 2)


# ---- audit --------------------------------------------------------------------------------------


class Flag(NamedTuple):
    """A sample that looks like a copy."""

    sample: int
    photograph: int
    subject: str
    embedding: str
    mirrored: bool
    ratio: float  # d_1 / d_2
    excess: float  # spacing over its limit, above 1
    sample_sha256: str
    photograph_sha256: str


class Power(NamedTuple):
    """How many planted copies of one kind were flagged as the person they copy."""

    kind: str
    share: float  # of the samples that were copies
    found: int
    planted: int


class Audit(NamedTuple):
    """What an audit found, and what it can find."""

    flags: list[Flag]
    samples: int
    people: int
    power: list[Power]
    false_alarms: int  # photographs of other people taken for copies ...
    tried: int  # ... of so many
    held_out_alarms: int | None  # samples taken for copies of held-out people, None without such
    held_out_people: int
    authentic: float  # AuthPct (Alaa et al. 2022): share of samples not nearer than photographs are
    c_t: (
        float | None
    )  # C_T (Meehan et al. 2020): z, negative if samples are nearer than held-out people
    figure: Figure

    def results(self) -> dict[str, Result]:
        """The numbers of the audit for results.json and the report."""
        what = (
            f"{self.samples} samples against {self.people} training people, two embeddings, "
            f"mirror images included; {100 * LEVEL:g} % of audits without copies raise a flag"
        )
        found = {
            "copies_flagged": Result(len(self.flags), n=self.samples, protocol=what),
            "copies_false_alarm_rate": _share(
                self.false_alarms,
                self.tried,
                "photographs of people, each against everybody else, taken for a copy (check first that none "
                "shows one person under two names); Wilson 95 %",
            ),
            "copies_authpct": Result(
                100 * self.authentic,
                n=self.samples,
                unit="%",
                protocol="share of samples farther from their nearest photograph than that one from "
                "its own nearest; for comparison only: blind to a few copies",
            ),
        }
        if self.held_out_alarms is not None:
            found["copies_held_out_alarm_rate"] = _share(
                self.held_out_alarms,
                self.samples,
                f"samples taken for copies of {self.held_out_people} people never trained on; "
                "Wilson 95 %",
            )
        if self.c_t is not None:
            found["copies_c_t"] = Result(
                self.c_t,
                n=self.samples,
                protocol="Mann-Whitney z of distances to the training set, samples against held-out "
                "photographs; for comparison only: blind to a few copies",
            )
        for kind in KINDS:
            at = {power.share: power for power in self.power if power.kind == kind}
            rest = ", ".join(f"{at[s].found} at {100 * s:g} %" for s in SHARES[1:])
            least = at[SHARES[0]]
            found[f"copies_power_{kind}"] = _share(
                least.found,
                least.planted,
                f"planted copies ({_MADE[kind]}) found when {100 * SHARES[0]:g} % of the samples are copies "
                f"({rest}); Wilson 95 %",
            )
        return found


_MADE = {
    "exact": "training photographs as they are",
    "mirrored": "their mirror images",
    "jpeg": f"saved as JPEG of quality {JPEG_QUALITY}",
    "blended": "70 % photograph, 30 % a sample",
}


def _share(found: int, tried: int, protocol: str) -> Result:
    ends = scipy.stats.binomtest(found, tried).proportion_ci(method="wilson")
    return Result(found / tried, float(ends.low), float(ends.high), tried, protocol=protocol)


def audit(
    samples: np.ndarray,
    training: np.ndarray,
    subjects: np.ndarray,
    held_out: np.ndarray | None = None,
    held_out_subjects: np.ndarray | None = None,
    *,
    seed: int = 0,
) -> Audit:
    """Looks for copies of training photographs among samples, and measures its own power.

    Args:
      samples: uint8 [M, H, W, C]; some hundreds at least, thousands to find rare copies.
      training: uint8 [N, H, W, C] of `subjects` [N], at least MIN_PEOPLE people.
      held_out: uint8 [L, H, W, C] of people whom the generator never saw, if there are such.
      held_out_subjects: person [L] of each; None: each its own.
      seed: of the choice of planted copies.

    Raises:
      ValueError: too few people, or no samples.
    """
    subjects = np.asarray(subjects)
    if len(samples) < 2:
        raise ValueError("a copy audit needs at least 2 samples")
    held_out = training[:0] if held_out is None else held_out
    if held_out_subjects is None:
        held_out_subjects = np.arange(len(held_out))
    rng = np.random.default_rng(seed)
    sources = rng.choice(len(training), PLANTED, replace=len(training) < PLANTED)
    copies = planted(training[sources], samples[rng.integers(len(samples), size=PLANTED)])

    spaces = (
        _Space(f"pixels at {LOWPASS} px", lowpass, training, WHITE, MARGIN),
        _Space("MobileNetV2 on a 4x4 grid", features, training),
    )
    excess, matches = [], []
    hit = {(kind, share): np.zeros(PLANTED, bool) for kind in KINDS for share in SHARES}
    wrong = np.zeros(len(training) + len(held_out), bool)
    enough = len(np.unique(held_out_subjects)) >= MIN_PEOPLE
    alarms = np.zeros(len(samples), bool)
    for space in spaces:
        reference = space.training, space.mirrored, subjects
        at_samples = space(samples)
        found = match(at_samples, *reference)
        bound = space.limit(found.spacing, found.spacings)
        matches.append(found)
        excess.append(found.spacing / bound)

        of_copies = {kind: match(space(copies[kind]), *reference) for kind in KINDS}
        right = {kind: subjects[of_copies[kind].photograph] == subjects[sources] for kind in KINDS}
        pool = np.concatenate([of_copies[kind].spacing for kind in KINDS])
        for share in SHARES:
            mixed = found.spacing.copy()
            replaced = rng.choice(len(mixed), int(np.ceil(share * len(mixed))), replace=False)
            mixed[replaced] = rng.choice(pool, len(replaced))
            with_copies = space.limit(mixed, found.spacings)
            for kind in KINDS:
                hit[kind, share] |= right[kind] & (of_copies[kind].spacing > with_copies)

        wrong[: len(training)] |= match(space.training, *reference, own=subjects).spacing > bound
        if len(held_out):
            others = match(space(held_out), *reference)
            wrong[len(training) :] |= others.spacing > bound
        if enough:
            turned = space(held_out[:, :, ::-1])
            strangers = match(at_samples, space(held_out), turned, held_out_subjects)
            alarms |= strangers.spacing > space.limit(strangers.spacing, strangers.spacings)
    # AuthPct and C_T by the last embedding, the network's.
    among = match(space.training, *reference, own=subjects).nearest
    authentic = float((found.nearest > among[found.photograph]).mean())
    c_t = _c_t(found.nearest, others.nearest) if len(held_out) else None

    excess = np.stack(excess)
    strongest = excess.argmax(0)
    worst = excess.max(0)
    chosen = lambda field, i: getattr(matches[strongest[i]], field)[i]
    flags = [
        Flag(
            int(i),
            int(chosen("photograph", i)),
            str(subjects[chosen("photograph", i)]),
            spaces[strongest[i]].name,
            bool(chosen("mirrored", i)),
            float(chosen("ratio", i)),
            float(worst[i]),
            _sha256(samples[i]),
            _sha256(training[chosen("photograph", i)]),
        )
        for i in np.argsort(-worst)
        if worst[i] > 1
    ]
    shown = np.argsort(-worst, kind="stable")[:SHOWN]
    pairs = [(_framed(samples[i], worst[i] > 1), training[chosen("photograph", i)]) for i in shown]
    figure = Figure(
        np.array([image for pair in pairs for image in pair]),
        10,
        f"The {len(shown)} samples (framed) most like one training photograph (beside it) and like no "
        f"other person: {len(flags)} flagged as copies (red frame).",
        photographs=True,
    )
    power = [Power(kind, share, int(hits.sum()), PLANTED) for (kind, share), hits in hit.items()]
    return Audit(
        flags,
        len(samples),
        len(np.unique(subjects)),
        power,
        int(wrong.sum()),
        len(wrong),
        int(alarms.sum()) if enough else None,
        len(np.unique(held_out_subjects)),
        authentic,
        c_t,
        figure,
    )


def planted(photographs: np.ndarray, others: np.ndarray) -> dict[str, np.ndarray]:
    """Copies of photographs by kind: exact, mirrored, JPEG'd, and blended 70/30 with `others`."""
    blended = 0.7 * photographs + 0.3 * others
    return {
        "exact": photographs,
        "mirrored": photographs[:, :, ::-1],
        "jpeg": np.stack([_jpeg(one) for one in photographs]),
        "blended": np.rint(blended).astype(np.uint8),
    }


def _jpeg(image: np.ndarray) -> np.ndarray:
    _, data = cv2.imencode(
        ".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    decoded = cv2.imdecode(data, cv2.IMREAD_UNCHANGED).reshape(image.shape)
    return decoded[..., ::-1]


def _c_t(samples: np.ndarray, held_out: np.ndarray) -> float:
    """z of the Mann-Whitney statistic: negative where samples lie nearer to the training set."""
    n, m = len(samples), len(held_out)
    u = scipy.stats.mannwhitneyu(samples, held_out).statistic
    return float((u - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12))


def _framed(image: np.ndarray, flagged: bool) -> np.ndarray:
    """Red (gray: white) where flagged, else orange (gray)."""
    return framed(image, COPIED, 255) if flagged else framed(image, GENERATED, 128)


def _sha256(image: np.ndarray) -> str:
    content = np.ascontiguousarray(image)
    return hashlib.sha256(repr(content.shape).encode() + content.tobytes()).hexdigest()


# ---- review -------------------------------------------------------------------------------------


def write_review(workdir: str | os.PathLike, found: Audit, of: str = "") -> pathlib.Path:
    """Writes the flags of an audit to `copies_review.json` in `workdir`, for a person to judge.

    A pair of the same two pictures that was judged before keeps its verdict.

    Args:
      of: what was audited, such as a checkpoint's digest; `require_reviewed` compares it.
    """
    path = pathlib.Path(workdir) / REVIEW
    old = {}
    if path.exists():
        for flag in _read(path)["flags"]:
            old[flag["sample_sha256"], flag["photograph_sha256"]] = flag
    flags = []
    for flag in found.flags:
        known = old.get((flag.sample_sha256, flag.photograph_sha256), {})
        judged = {key: known.get(key) for key in ("verdict", "reviewer")}
        flags.append(flag._asdict() | judged)
    record = {
        "about": "Samples that look like copies of training photographs. Compare each pair (figure "
        f"`copies`), set its verdict to {' or '.join(map(repr, VERDICTS))} and reviewer to your name. "
        "No sample is exported while a verdict is null.",
        "of": of,
        "samples": found.samples,
        "flags": flags,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, record)
    return path


def write_unaudited(workdir: str | os.PathLike, of: str = "") -> None:
    """Notes that there are less than MIN_PEOPLE people: too few to tell a copy from a resemblance."""
    record = {
        "about": f"Not audited: among less than {MIN_PEOPLE} people a copy cannot be told from a "
        "resemblance. Compare the figure `neighbours` with your own eyes.",
        "of": of,
        "samples": 0,
        "flags": [],
    }
    _write(pathlib.Path(workdir) / REVIEW, record)


def mark(workdir: str | os.PathLike, sample: int, verdict: str, reviewer: str) -> None:
    """Notes a person's verdict on a flagged sample.

    Raises:
      UserError: no audit, no such flag, a verdict that is not one of VERDICTS, or no name.
    """
    path = pathlib.Path(workdir) / REVIEW
    record = _read(path)
    if verdict not in VERDICTS:
        raise UserError(f"verdict {verdict!r}: say one of {', '.join(map(repr, VERDICTS))}.")
    if not reviewer.strip():
        raise UserError("--reviewer: a verdict needs the name of who gives it.")
    flags = [flag for flag in record["flags"] if flag["sample"] == sample]
    if not flags:
        known = ", ".join(str(flag["sample"]) for flag in record["flags"]) or "none"
        raise UserError(f"{path}: sample {sample} is not flagged; flagged are: {known}.")
    for flag in flags:
        flag |= {"verdict": verdict, "reviewer": reviewer}
    _write(path, record)


def require_reviewed(workdir: str | os.PathLike, of: str | None = None) -> frozenset[int]:
    """Refuses unless every flag of the workdir's copy audit has a person's verdict.

    Args:
      of: what is about to be exported; None: not compared with what was audited.

    Returns:
      The samples that a person judged to be copies: they must be left out of what is exported.

    Raises:
      UserError: no audit, an audit of something else, or a flag without a verdict.
    """
    path = pathlib.Path(workdir) / REVIEW
    record = _read(path)
    if of is not None and record["of"] != of:
        raise UserError(
            f"{path} is an audit of {record['of'] or 'something unnamed'}, not of {of}: run "
            "--mode=evaluate again before samples are exported."
        )
    waiting = [str(f["sample"]) for f in record["flags"] if f["verdict"] not in VERDICTS]
    if waiting:
        raise UserError(
            f"{path}: {len(waiting)} sample(s) look like copies of training photographs and nobody has "
            f"judged them ({', '.join(waiting[:10])}{', ...' if len(waiting) > 10 else ''}). Compare the "
            "pairs in the report, then set each verdict in this file or run: python -m "
            f"jaxface.metrics.copies {workdir} --sample={waiting[0]} --verdict='no copy' "
            "--reviewer=NAME"
        )
    return frozenset(f["sample"] for f in record["flags"] if f["verdict"] == "copy")


def _read(path: pathlib.Path) -> dict:
    try:
        record = json.loads(path.read_text())
        whole = isinstance(record, Mapping) and isinstance(record["of"], str)
        for flag in record["flags"]:
            whole &= {"sample", "verdict", "sample_sha256", "photograph_sha256"} <= flag.keys()
        if whole:
            return record
        reason = "it is not a record of this kind"
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing, so nobody has looked for copies of people: run --mode=evaluate first."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error)
    raise UserError(f"{path} cannot be read ({reason}): delete it and run --mode=evaluate again.")


def _write(path: pathlib.Path, record: dict) -> None:
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(json.dumps(record, indent=1))
    os.replace(draft, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Lists the flags of a workdir, or notes a verdict on one."""
    parser = argparse.ArgumentParser("python -m jaxface.metrics.copies", description=main.__doc__)
    parser.add_argument("workdir")
    parser.add_argument("--sample", type=int, help="number of the flagged sample")
    parser.add_argument("--verdict", default="", help=" or ".join(map(repr, VERDICTS)))
    parser.add_argument("--reviewer", default="", help="who looked at the two pictures")
    args = parser.parse_args(arguments)
    try:
        if args.sample is not None:
            mark(args.workdir, args.sample, args.verdict, args.reviewer)
        for flag in _read(pathlib.Path(args.workdir) / REVIEW)["flags"]:
            print(
                f"sample {flag['sample']}: like photograph {flag['photograph']} of "
                f"{flag['subject']}, d1/d2 {flag['ratio']:.2f}: {flag['verdict'] or 'not judged'}"
            )
    except UserError as error:
        print(error)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
