"""The copy audit: its statistic against loops and theory, its power on toys, and who must look."""

import json

import cv2
import numpy as np
import pytest
import scipy.stats

from benchmarks import copies as toy
from jaxface.errors import UserError
from jaxface.metrics import copies

CLEAN, PLANTED = 90, 4


def test_match_by_loop():
    rng = np.random.default_rng(0)
    samples, training, mirrored = (rng.normal(size=(n, 5)) for n in (7, 60, 60))
    subjects = np.array([f"p{k}" for k in rng.permutation(np.arange(60) % 20)])
    own = np.array([f"p{k}" for k in range(7)])
    for mine in (None, own):
        found = copies.match(samples, training, mirrored, subjects, mine)
        k = found.spacings
        assert k == (20 - (mine is not None)) // 4
        for i, sample in enumerate(samples):
            both = [
                min(np.linalg.norm(sample - a), np.linalg.norm(sample - b))
                for a, b in zip(training, mirrored)
            ]
            people = {
                name: min(d for d, s in zip(both, subjects) if s == name) for name in set(subjects)
            }
            if mine is not None:
                del people[own[i]]
            d = sorted(people.values())
            spacings = [(j + 1) * np.log(d[j + 1] / d[j]) for j in range(k + 1)]
            assert found.spacing[i] == pytest.approx(spacings[0] / np.mean(spacings[1:]), rel=1e-9)
            assert found.ratio[i] == pytest.approx(d[0] / d[1], rel=1e-9)
            assert found.nearest[i] == pytest.approx(d[0], rel=1e-9)
            assert both[found.photograph[i]] == pytest.approx(d[0], rel=1e-9)
            at = found.photograph[i]
            straight = np.linalg.norm(sample - training[at])
            assert found.mirrored[i] == (np.linalg.norm(sample - mirrored[at]) < straight)


def test_spacings_follow_the_law_where_people_are_evenly_dense():
    rng = np.random.default_rng(1)
    spacing = []
    for _ in range(600):
        people = rng.uniform(-1, 1, (300, 2))
        far = people + 10  # mirror images that are nobody's neighbours
        found = copies.match(np.zeros((1, 2)), people, far, np.arange(300))
        spacing.append(found.spacing[0])
    law = scipy.stats.f(2, 2 * found.spacings)
    assert scipy.stats.kstest(spacing, law.cdf).pvalue > 0.01
    assert copies.limit(np.array(spacing), found.spacings) == pytest.approx(
        law.isf(copies.LEVEL / 600), rel=0.2
    )


def test_toy_runs():
    """The benchmark in small: 1,000 samples, 12 runs; its own numbers are of 5,000 and 80."""
    clean = [toy.run(seed, False, 1000) for seed in range(6)]
    planted = [toy.run(100 + seed, True, 1000) for seed in range(6)]
    assert not any(r.alarm or r.stranger for r in clean + planted)
    assert sum(r.found for r in planted) >= 28
    assert all(0.6 < r.least < 0.9 for r in clean)


def test_too_few_people():
    with pytest.raises(ValueError, match="needs 12 people"):
        copies.match(np.zeros((2, 3)), np.zeros((11, 3)), np.ones((11, 3)), np.arange(11))


def pictures(n, rng):
    """Clouds of color with a different one on each side: uint8 [n, 32, 32, 3]."""
    coarse = rng.uniform(0, 255, (n, 6, 6, 3)).astype(np.float32)
    fine = [cv2.resize(one, (32, 32), interpolation=cv2.INTER_CUBIC) for one in coarse]
    return np.clip(np.rint(fine), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def audited():
    rng = np.random.default_rng(2)
    training, held_out, samples = pictures(64, rng), pictures(12, rng), pictures(CLEAN, rng)
    planted = [training[3], training[9, :, ::-1], copies._jpeg(training[20]), training[31]]
    samples = np.concatenate([samples, planted])
    return training, samples, copies.audit(samples, training, np.arange(64), held_out)


def test_copies_are_flagged_and_nothing_else(audited):
    training, samples, found = audited
    flags = {f.sample: (f.photograph, f.subject, f.mirrored) for f in found.flags}
    expected = {CLEAN: 3, CLEAN + 1: 9, CLEAN + 2: 20, CLEAN + 3: 31}
    assert flags == {s: (p, str(p), s == CLEAN + 1) for s, p in expected.items()}
    assert all(f.excess > 1 and f.ratio < 0.5 for f in found.flags)
    pairs = found.figure.images.reshape(-1, 2, 32, 32, 3)
    assert found.figure.photographs
    for flag, (sample, photograph) in zip(found.flags, pairs):
        np.testing.assert_array_equal(photograph, training[flag.photograph])
        np.testing.assert_array_equal(sample[1:-1, 1:-1], samples[flag.sample, 1:-1, 1:-1])
        assert (sample[0] == (220, 0, 0)).all()
    assert (pairs[4, 0, 0] == (230, 110, 30)).all()


def test_an_audit_measures_itself(audited):
    results = audited[-1].results()
    assert results["copies_flagged"].value == PLANTED
    for kind in ("exact", "mirrored", "jpeg"):
        assert results[f"copies_power_{kind}"].value > 0.9
    blended = results["copies_power_blended"]
    assert 0 <= blended.low <= blended.value <= blended.high <= 1
    assert blended.n == copies.PLANTED
    assert results["copies_false_alarm_rate"].value == 0
    assert results["copies_false_alarm_rate"].n == 64 + 12
    assert 0.02 < results["copies_false_alarm_rate"].high < 0.06
    assert results["copies_held_out_alarm_rate"].value == 0
    assert -4 < results["copies_c_t"].value < 4
    assert 50 < results["copies_authpct"].value < 100


def test_planted_copies_are_what_their_names_say():
    rng = np.random.default_rng(3)
    photographs, others = pictures(2, rng), pictures(2, rng)
    made = copies.planted(photographs, others)
    assert set(made) == set(copies.KINDS)
    np.testing.assert_array_equal(made["mirrored"][:, :, 0], photographs[:, :, -1])
    assert 0 < np.abs(made["jpeg"].astype(float) - photographs).mean() < 12
    blend = 0.7 * photographs[0, 5, 6] + 0.3 * others[0, 5, 6]
    np.testing.assert_allclose(made["blended"][0, 5, 6], blend, atol=0.5)
    gray = copies.planted(photographs[..., :1], others[..., :1])
    assert all(one.shape == (2, 32, 32, 1) for one in gray.values())


def test_nothing_leaves_before_a_person_has_looked(tmp_path, audited, capsys):
    found = audited[-1]
    with pytest.raises(UserError, match=r"copies_review\.json is missing.*--mode=evaluate"):
        copies.require_reviewed(tmp_path)
    file = copies.write_review(tmp_path, found, of="checkpoint 7")
    with pytest.raises(UserError, match=r"copies_review\.json: 4 sample\(s\).*--verdict"):
        copies.require_reviewed(tmp_path)

    # By the command, then by hand.
    first = str(found.flags[0].sample)
    assert copies.main([str(tmp_path), f"--sample={first}", "--verdict=copy"]) == 2
    assert "needs the name" in capsys.readouterr().out
    command = [str(tmp_path), f"--sample={first}", "--verdict=copy", "--reviewer=Ono"]
    assert copies.main(command) == 0
    assert f"sample {first}" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"3 sample\(s\)"):
        copies.require_reviewed(tmp_path)
    record = json.loads(file.read_text())
    for flag in record["flags"][1:]:
        flag |= {"verdict": "no copy", "reviewer": "Abe"}
    file.write_text(json.dumps(record))
    assert copies.require_reviewed(tmp_path, of="checkpoint 7") == {int(first)}

    # An audit of the same pictures knows the verdicts, one of others does not.
    copies.write_review(tmp_path, found, of="checkpoint 8")
    assert copies.require_reviewed(tmp_path) == {int(first)}
    with pytest.raises(UserError, match="not of checkpoint 7"):
        copies.require_reviewed(tmp_path, of="checkpoint 7")
    other = found._replace(flags=[found.flags[0]._replace(sample_sha256="0")])
    copies.write_review(tmp_path, other)
    with pytest.raises(UserError, match=r"1 sample\(s\)"):
        copies.require_reviewed(tmp_path)


def test_no_flags_no_review(tmp_path, audited):
    copies.write_review(tmp_path, audited[-1]._replace(flags=[]))
    assert copies.require_reviewed(tmp_path) == frozenset()


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"of": "", "flags": [{"sample": 1}]}', "null"]
)
def test_a_damaged_record_lets_nothing_pass(tmp_path, content):
    (tmp_path / copies.REVIEW).write_text(content)
    with pytest.raises(UserError, match="cannot be read"):
        copies.require_reviewed(tmp_path)


def test_verdicts_are_two_words(tmp_path, audited):
    copies.write_review(tmp_path, audited[-1])
    sample = audited[-1].flags[0].sample
    with pytest.raises(UserError, match="say one of"):
        copies.mark(tmp_path, sample, "fine", "Ono")
    with pytest.raises(UserError, match="sample 5 is not flagged; flagged are: "):
        copies.mark(tmp_path, 5, "copy", "Ono")
    # A verdict that is neither word is no verdict.
    file = tmp_path / copies.REVIEW
    file.write_text(file.read_text().replace('"verdict": null', '"verdict": "fine"'))
    with pytest.raises(UserError, match=r"4 sample\(s\)"):
        copies.require_reviewed(tmp_path)


def test_too_few_people_are_noted_as_not_audited(tmp_path):
    copies.write_unaudited(tmp_path, of="checkpoint 7")
    assert copies.require_reviewed(tmp_path, of="checkpoint 7") == frozenset()
    assert json.loads((tmp_path / copies.REVIEW).read_text())["about"].startswith("Not audited")
