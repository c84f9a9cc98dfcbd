"""Baselines of headshots: out of fold, from the seed, and a control that finds leaks and nothing else."""

import numpy as np
import pytest

from jaxface.errors import UserError
from jaxface.metrics import headshot_baselines

RNG = np.random.default_rng(0)
SUBJECT = np.repeat(np.arange(60), 3)
LABEL = np.repeat(RNG.permutation(60) % 2, 3)
# What a person looks like, whatever the label, and the label in two of the features.
FEATURES = np.repeat(RNG.normal(size=(60, 6)), 3, axis=0) + 0.05 * RNG.normal(size=(180, 6))
FEATURES[:, :2] += 2 * (2 * LABEL[:, None] - 1)
BY_PERSON = SUBJECT % 4
BY_PHOTOGRAPH = np.arange(180) % 3  # every person in all folds


def accuracy(probability, label):
    return ((probability >= 0.5) == label).mean()


@pytest.mark.parametrize("name", [n for n in headshot_baselines.BASELINES if n != "majority"])
def test_learns_what_is_there_and_nothing_from_shuffled_labels(name):
    found = headshot_baselines.out_of_fold(name, FEATURES, LABEL, BY_PERSON)
    assert accuracy(found, LABEL) > 0.9 and ((found >= 0) & (found <= 1)).all()
    np.testing.assert_array_equal(
        found, headshot_baselines.out_of_fold(name, FEATURES, LABEL, BY_PERSON)
    )
    chance = headshot_baselines.shuffled(LABEL, SUBJECT, 1)
    clean = headshot_baselines.out_of_fold(name, FEATURES, chance, BY_PERSON)
    assert 0.3 < accuracy(clean, chance) < 0.7


def test_the_control_finds_people_in_two_folds():
    chance = headshot_baselines.shuffled(LABEL, SUBJECT, 1)
    leaking = headshot_baselines.out_of_fold("random_forest", FEATURES, chance, BY_PHOTOGRAPH)
    assert accuracy(leaking, chance) > 0.9


def test_a_row_is_told_by_other_folds_only():
    told = headshot_baselines.out_of_fold("logistic_regression", FEATURES, LABEL, BY_PERSON)
    changed = np.where(BY_PERSON == 2, 1 - LABEL, LABEL)
    again = headshot_baselines.out_of_fold("logistic_regression", FEATURES, changed, BY_PERSON)
    np.testing.assert_array_equal(told[BY_PERSON == 2], again[BY_PERSON == 2])
    assert (told[BY_PERSON != 2] != again[BY_PERSON != 2]).all()


def test_majority_is_the_share_learned_from():
    label, fold = np.array([1, 1, 1, 0, 0, 1]), np.array([0, 0, 1, 1, -1, -1])
    found = headshot_baselines.out_of_fold("majority", np.zeros((6, 2, 2)), label, fold)
    np.testing.assert_allclose(found[:4], [0.5, 0.5, 0.75, 0.75])
    assert np.isnan(found[4:]).all()


def test_shuffling_keeps_people_and_counts():
    found = headshot_baselines.shuffled(LABEL, SUBJECT, 3)
    assert found.sum() == LABEL.sum() and (found != LABEL).any()
    assert all(len(set(found[one == SUBJECT])) == 1 for one in range(60))
    np.testing.assert_array_equal(found, headshot_baselines.shuffled(LABEL, SUBJECT, 3))
    assert (found != headshot_baselines.shuffled(LABEL, SUBJECT, 4)).any()
    smiles = np.arange(180) % 5 == 0
    mixed = headshot_baselines.shuffled(smiles, SUBJECT, 3)
    assert mixed.sum() == smiles.sum() and (mixed != smiles).any()


def test_what_cannot_be_learned():
    with pytest.raises(UserError, match="Did you mean 'random_forest'"):
        headshot_baselines.out_of_fold("randomforest", FEATURES, LABEL, BY_PERSON)
    with pytest.raises(
        UserError, match="fold 0: all photographs of the other folds have one label"
    ):
        headshot_baselines.out_of_fold("majority", np.zeros((4, 1)), [0, 0, 1, 1], [0, 0, 1, 1])
    with pytest.raises(ValueError, match="not finite"):
        headshot_baselines.out_of_fold("majority", np.full((2, 1), np.nan), [0, 1], [0, 1])
    with pytest.raises(ValueError, match="N rows"):
        headshot_baselines.out_of_fold("majority", FEATURES, LABEL[1:], BY_PERSON)
