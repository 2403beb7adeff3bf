"""Scores of decision trees: edit ratio, nodes and paths (Text2DT, formats.md section 10).

A tree is a list of nodes in preorder. The official scorer keeps parents and children in a matrix and walks it; here
each list is built, measured and compared in time linear in its nodes (and in what their triples hold).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple, TypeAlias

from .answers import Answer, TreeLines
from .scoring import NO_ROW, Counts, Row, Scorer, Totals, ratio

#: A node by what it says: role, logical relation, and its triples in lower case.
Node: TypeAlias = tuple[str, str, frozenset[tuple[str, ...]]]

#: What a node that has no partner is compared with.
_NO_NODE: Node = ("", "null", frozenset())
#: Inner nodes that the official scorer joins with their children before it gives up.
_MOST_INNER_NODES = 101
#: What the official scorer starts each pooled count with, so that nothing is divided by 0.
_START = 1e-6


class Tree(NamedTuple):
    """Nodes in preorder, and the tree that they stand for as far as they make one.

    Attributes:
        nodes: what each node says.
        children: the left and the right child of each inner node, by number.
        parents: the parent of each child, and which one it is of the two.
    """

    nodes: Sequence[Node]
    children: Mapping[int | None, tuple[int, int]]
    parents: Mapping[int, tuple[int, str]]


def lowered(triple: Sequence[str]) -> tuple[str, ...]:
    """A triple as it is compared."""
    return tuple(part.lower() for part in triple)


def build_tree(answer: Sequence[Mapping[str, Any]]) -> Tree:
    """The tree of an answer (`TreeLines`).

    A condition takes the next two decisions after it as its children and becomes a decision itself, until the root is
    one. Nodes beyond that, and those that stand where no children can follow, are in no tree.
    """
    nodes: list[Node] = [
        (node["role"], node["logical_rel"], frozenset(map(lowered, node["triples"]))) for node in answer
    ]
    children: dict[int | None, tuple[int, int]] = {}
    parents: dict[int, tuple[int, str]] = {}
    open_nodes: list[tuple[int, str]] = []
    for number, (role, _, _) in enumerate(nodes):
        if role not in ("C", "D"):  # officially as if it were not there
            continue
        open_nodes.append((number, role))
        while [role for _, role in open_nodes[-3:]] == ["C", "D", "D"] and len(children) < _MOST_INNER_NODES:
            (parent, _), (left, _), (right, _) = open_nodes[-3:]
            open_nodes[-3:] = [(parent, "D")]
            children[parent] = (left, right)
            parents.update({left: (parent, "L"), right: (parent, "R")})
        if open_nodes[0] == (0, "D"):
            break
    return Tree(nodes, children, parents)


def node_distance(first: Node, second: Node) -> int:
    """One for another role, one for another logical relation, and the triples that only one of them has."""
    return (first[0] != second[0]) + (first[1] != second[1]) + len(first[2] ^ second[2])


def places(first: Tree, second: Tree) -> Iterator[tuple[int | None, int | None]]:
    """The nodes that stand at one place in both trees, by number, in preorder; None where only one has such a place."""
    left: list[tuple[int | None, int | None]] = [(0, 0)]
    while left:
        ours, theirs = left.pop()
        yield ours, theirs
        left += reversed([*zip_longest(first.children.get(ours, ()), second.children.get(theirs, ()))])


def edit_distance(first: Tree, second: Tree) -> int:
    """The distances of the nodes at each place of the two trees (`places`)."""
    return sum(
        node_distance(
            _NO_NODE if ours is None else first.nodes[ours], _NO_NODE if theirs is None else second.nodes[theirs]
        )
        for ours, theirs in places(first, second)
    )


def _paths(tree: Tree, known: dict[tuple[int, str, Node], int]) -> tuple[list[int], bool]:
    """The path of each leaf from the root, as a number that equal paths share, and whether all leaves have one.

    As in the official scorer, it ends before the first leaf that hangs on no root.
    """
    numbers: dict[int, int | None] = {}
    found: list[int] = []
    # Parents stand before their children.
    for number, node in enumerate(tree.nodes):
        parent, side = tree.parents.get(number, (None, ""))
        above = -1 if number == 0 else None if parent is None else numbers[parent]
        numbers[number] = path = None if above is None else known.setdefault((above, side, node), len(known))
        if number not in tree.children:
            if path is None:
                return found, False
            found.append(path)
    return found, True


@dataclass(frozen=True)
class TreeEdit(Scorer):
    """Edit ratio of decision trees; besides, F1 of nodes with triples (``node_f1``) and of paths (``path_f1``).

    The ratio is 1 less the pooled edit distance over the largest there can be: the triples of both trees, and twice
    their nodes that have triples. Its official name is ``tree_lenv_radio``.
    """

    primary = "tree_edit_ratio"
    metric = "tree edit ratio"
    shown = ("edit", "largest", "node_tp", "path_tp")

    def count(self, prediction: Answer, gold: Answer, row: Row = NO_ROW) -> Counts:
        # No prediction has no node, nor has the lenient parser where it reads none; the official one then gives one.
        predicted, expected = (build_tree(answer or [TreeLines.empty]) for answer in (prediction, gold))
        said = [Counter(node for node in tree.nodes if node[2]) for tree in (predicted, expected)]
        triples = [len(frozenset[tuple[str, ...]]().union(*nodes)) for nodes in ([n[2] for n in s] for s in said)]
        known: dict[tuple[int, str, Node], int] = {}
        (ours, whole), theirs, expected_whole = _paths(predicted, known), list[int](), False
        if whole:
            theirs, expected_whole = _paths(expected, known)
        wanted = set(theirs) if expected_whole else set()
        return {
            "edit": edit_distance(predicted, expected),
            "largest": sum(triples) + 2 * sum(nodes.total() for nodes in said),
            "node_tp": sum(number * said[1][node] for node, number in said[0].items()),
            "node_predicted": said[0].total(),
            "node_gold": said[1].total(),
            "path_tp": sum(path in wanted for path in ours),
            "path_predicted": len(ours),
            "path_gold": len(theirs),
        }

    def score(self, totals: Totals, protocol: str = "official") -> dict[str, Any]:
        def f1(kind: str) -> Any:
            hits, predicted, gold = (totals.get(f"{kind}_{part}", 0) + _START for part in ("tp", "predicted", "gold"))
            return 2 * (hits / predicted) * (hits / gold) / (hits / predicted + hits / gold)

        edit = 1 - ratio(totals.get("edit", 0), totals.get("largest", 0))
        return {"tree_edit_ratio": edit, "node_f1": f1("node"), "path_f1": f1("path")}
