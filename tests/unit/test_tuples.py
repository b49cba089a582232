"""Our namedtuple and that of the standard library behave alike."""

from __future__ import annotations

import collections
import copy
import pickle

import pytest

from minicontainer import tuples

Ours = tuples.namedtuple("Ours", "left right depth", defaults=(3,))
Theirs = collections.namedtuple("Theirs", "left right depth", defaults=(3,))


@pytest.mark.parametrize("values, named", [((1, 2, 4), {}), ((1, 2), {}), ((1,), {"right": 2})])
def test_construction_fields_and_order(values, named):
    ours, theirs = Ours(*values, **named), Theirs(*values, **named)
    assert tuple(ours) == tuple(theirs)
    assert (ours.left, ours.right, ours.depth) == (theirs.left, theirs.right, theirs.depth)
    assert ours._fields == theirs._fields
    assert ours._asdict() == theirs._asdict()
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours")


@pytest.mark.parametrize("values, named", [((), {}), ((1, 2, 3, 4), {}), ((1, 2), {"up": 1})])
def test_wrong_construction_is_a_type_error(values, named):
    with pytest.raises(TypeError):
        Theirs(*values, **named)
    with pytest.raises(TypeError):
        Ours(*values, **named)


def test_replace_hash_equality_and_copies():
    one = Ours(1, 2)
    assert one._replace(right=5) == Ours(1, 5, 3) == (1, 5, 3)
    assert hash(one) == hash((1, 2, 3))
    assert copy.deepcopy(one) == one
    assert pickle.loads(pickle.dumps(one)) == one


def test_it_cannot_be_changed():
    with pytest.raises(AttributeError):
        Ours(1, 2).left = 5
