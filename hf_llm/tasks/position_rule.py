"""What a role labeller must beat: what stands before the predicate is its agent, what stands after it, its patient."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hf_llm.metrics.roles import PREDICATE, role_report, spans

Propositions = tuple[Sequence[Sequence[str]], Sequence[int], Sequence[Sequence[str]]]  # words, predicate, tags
REACHES = (0, 1, 2, 3, None)
Roles = Mapping[str, "str | None"]  # of the words that predicates are, lower-cased


@dataclass
class PositionRule:
    """A0 before the predicate and A1 after it, up to a punctuation mark or so many words, whichever comes first.

    How many is what serves best on the train split. A predicate that is a word of the train split has on either side
    the role that is nearest to it there most often (`is` has A1 before and A2 after it), or none.
    """

    before: int | None  # words at most; None: as many as there are
    after: int | None
    usual: tuple[str, str] = ("A0", "A1")
    known: tuple[Roles, Roles] = field(default=({}, {}), repr=False)

    @classmethod
    def fitted(cls, train: Propositions) -> PositionRule:
        """The rule with the best F1 on these rows."""
        words, predicates, tags = train
        usual = ("ARG0", "ARG1") if any(tag.endswith("-ARG0") for own in tags for tag in own) else ("A0", "A1")
        seen: tuple[dict[str, Counter], dict[str, Counter]] = defaultdict(Counter), defaultdict(Counter)
        for sentence, predicate, own in zip(words, predicates, tags, strict=True):
            found = [(role, span) for role, span in spans(own) if role != PREDICATE]
            left = [role for role, (_, stop) in found if stop <= predicate]
            right = [role for role, (start, _) in found if start > predicate]
            seen[0][sentence[predicate].lower()][left[-1] if left else None] += 1
            seen[1][sentence[predicate].lower()][right[0] if right else None] += 1
        left_of, right_of = ({word: counts.most_common(1)[0][0] for word, counts in side.items()} for side in seen)
        rules = [cls(*reach, usual, (left_of, right_of)) for reach in itertools.product(REACHES, REACHES)]

        def score(rule: PositionRule) -> float:
            return role_report(map(rule, words, predicates), tags)["f1"]

        return max(rules, key=score)

    def __call__(self, words: Sequence[str], predicate: int) -> list[str]:
        least = 0 if self.before is None else max(predicate - self.before, 0)
        most = len(words) if self.after is None else min(predicate + 1 + self.after, len(words))
        start, stop = predicate, predicate + 1
        while start > least and words[start - 1][0].isalnum():
            start -= 1
        while stop < most and words[stop][0].isalnum():
            stop += 1
        tags = ["O"] * len(words)
        sides = range(start, predicate), range(predicate + 1, stop)
        for usual, known, place in zip(self.usual, self.known, sides, strict=True):
            role = known.get(words[predicate].lower(), usual)
            for word in place if role else ():
                tags[word] = f"{'B' if word == place.start else 'I'}-{role}"
        tags[predicate] = "B-V"
        return tags

    def __str__(self) -> str:
        reach = ["to the next punctuation" if most is None else str(most) for most in (self.before, self.after)]
        return f"{reach[0]} before, {reach[1]} after"
