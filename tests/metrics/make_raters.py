"""Writes raters.json: votes and what other programs say of them. Needs requirements-dev.txt.

python tests/metrics/make_raters.py
"""

import json
import pathlib
from importlib.metadata import version

import krippendorff
import numpy as np
import pandas as pd
from crowdkit.aggregation import DawidSkene, MajorityVote
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

FILE = pathlib.Path(__file__).with_name("raters.json")
ITERATIONS = (1, 30)


def tables() -> dict[str, tuple[list, int]]:
    """{name: (table of votes [items][raters], -1 for none, and how many classes)}."""
    rng = np.random.default_rng(1979)

    def draw(items, skills, share, classes, gaps):
        truth = rng.choice(classes, items, p=share)
        wrong = (truth[:, None] + rng.integers(1, classes, (items, len(skills)))) % classes
        right = rng.random((items, len(skills))) < skills
        table = np.where(right, truth[:, None], wrong)
        table[rng.random(table.shape) < gaps] = -1
        return table[(table >= 0).any(1)]

    one_sided = draw(30, [0.9, 0.8, 0.7, 0.6], [0.4, 0.6], 2, 0.1)
    one_sided[:, 3] = np.where(one_sided[:, 3] >= 0, 1, -1)  # says 1 whatever it is
    found = {
        "complete": (draw(24, [0.95, 0.9, 0.8, 0.7], [0.55, 0.45], 2, 0), 2),
        "abstentions": (draw(40, [0.97, 0.95, 0.6, 0.6, 0.6], [0.55, 0.45], 2, 0.25), 2),
        "three_classes": (draw(50, [0.9, 0.8, 0.8, 0.6, 0.5, 0.5], [0.5, 0.3, 0.2], 3, 0.2), 3),
        "one_sided": (one_sided, 2),
    }
    return {name: (table.tolist(), classes) for name, (table, classes) in found.items()}


def judge(table: np.ndarray, classes: int) -> dict:
    """What statsmodels, krippendorff and crowd-kit say of a table."""
    gaps = np.where(table < 0, np.nan, table)
    said = {"alpha": krippendorff.alpha(reliability_data=gaps.T, level_of_measurement="nominal")}
    if (table >= 0).all():
        said["kappa"] = fleiss_kappa(aggregate_raters(table)[0])
    items, raters = np.nonzero(table >= 0)
    votes = pd.DataFrame({"task": items, "worker": raters, "label": table[items, raters]})
    said["majority"] = MajorityVote().fit_predict(votes).sort_index().tolist()
    for iterations in ITERATIONS:
        model = DawidSkene(n_iter=iterations, tol=-np.inf).fit(votes)
        answers = pd.MultiIndex.from_product([range(table.shape[1]), range(classes)])
        errors = model.errors_.reindex(answers, fill_value=0.0)[list(range(classes))]
        said[f"dawid_skene_{iterations}"] = {
            "posterior": model.probas_.sort_index()[list(range(classes))].values.tolist(),
            "prior": model.priors_.sort_index().tolist(),
            # said, true -> true, said
            "confusion": errors.values.reshape(-1, classes, classes).swapaxes(1, 2).tolist(),
        }
    return said


def main() -> None:
    known = ("statsmodels", "krippendorff", "crowd-kit")
    fixtures = {
        name: {"table": table, "classes": classes, **judge(np.array(table), classes)}
        for name, (table, classes) in tables().items()
    }
    text = json.dumps({"versions": {name: version(name) for name in known}, "fixtures": fixtures})
    FILE.write_text(text.replace('}, "', '},\n"').replace(', "', ',\n"') + "\n")


if __name__ == "__main__":
    main()
