"""Check names and prose for words that a reader has to decode: `python -m tests.words`.

Names are those that the syntax tree defines: modules, functions, classes, parameters, variables, attributes. Prose is
comments, docstrings and every other string of several words, so log lines, errors and output of commands are included.
Of a document it is all but code and what a command has written. Of tests only their names and docstrings are checked,
and those that are listed in words_of_old_tests.txt are not. Arguments are the beginnings of paths to check alone.
"""

import ast
import io
import re
import sys
import tokenize
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/")
OLD_TESTS = Path(__file__).with_name("words_of_old_tests.txt")

# A word of any name (names are split at underscores and capitals), and what to write instead.
WORDS_OF_NAMES = {
    "found": "the noun: match, entry, values",
    "kept": "the noun: retained or stored entries",
    "said": "the noun: what was read or reported",
    "told": "the noun: settings, message, postings",
    "looks": "the noun: evaluations",
    "dearest": "highest_unit_price",
    "desk": "registry, repository",
    "elders": "long_open",
    "hear": "on_message, or the verb for what is done",
    "heard": "received, or the noun",
    "house": "context, or the caches that it is",
    "hurrying": "aborting",
    "manner": "options",
    "mistermed": "keys_outside_customer_terms",
    "newcomers": "default",
    "planless": "keys_with_unknown_plan",
    "purse": "wallet state, charge",
    "purses": "wallet charges",
    "remains": "leases, orphaned leases",
    "sharers": "total_workers",
    "sweep": "what is removed: close_idle, expire_grants, return_expired",
    "unheard": "detached",
    "voice": "record templates",
    "wordless": "opaque",
}
# A whole name of any kind, without leading underscores.
WHOLE_NAMES = {
    "asked": "requested, charged, or the noun",
    "came": "pending, received",
    "door": "listener",
    "elsewhere": "moved_fields",
    "hand": "units, or the noun",
    "head_down": "client_response_head",
    "head_up": "upstream_request_head",
    "last_in": "accept_pending",
    "last_words": "last_status",
    "up": "upstream, upstream_head",
    "way": "route",
}
# A whole name of a module, class or function, without leading underscores.
DEFINITIONS = {
    "agree": "check_entitlement",
    "alone": "decide_locally",
    "Arrival": "RoutedRequest",
    "Book": "WalletSnapshot",
    "carry": "rewrite_long_open",
    "Draft": "PolicySource",
    "draft": "source",
    "force": "charge_unconditionally",
    "form": "build_variant, format",
    "forms": "templates, formats",
    "go_on": "what is continued: drain_answer",
    "holds": "matches",
    "inherit": "adopt",
    "Like": "RecordTemplate",
    "like": "template_for",
    "Look": "Evaluation",
    "look": "evaluate, inspect",
    "lowest": "in_lowest_terms",
    "obey": "on_command",
    "opened": "load",
    "opens": "opens_after_ms",
    "Place": "Location, RecordSource",
    "Post": "ChildSlot",
    "put_in_force": "apply, swap_in",
    "ReadingExchange": "InspectedExchange",
    "Remain": "OrphanedLease",
    "says": "describe",
    "spend": "try_local",
    "Standing": "ChildStatus",
    "tell": "render",
    "truth": "actual_units",
}
ALLOWED_NAMES = re.compile(r"not_found|kept_alive|(is|was|has)_(found|kept)", re.IGNORECASE)

_CLAUSE = "the noun instead of the clause"
# A pattern of prose. Words in backticks or quotes are names or values, and are not looked at.
PHRASES = [
    (re.compile(pattern), advice)
    for pattern, advice in [
        (r"\b(?:is|are|was|were|be|being) none\b", "unknown, absent, not a ..."),
        (r"(?<!here )\b(?:is|are|was|were|be) no (?!longer|more|less|later|earlier|such|need)\w+", "is not a ..."),
        (r"\b[Tt]old\b", "reported, sent, known, repeated"),
        (r"(?<!source of )\b[Tt]ruth\b", "the actual units, the source that decides"),
        (r"\b[Bb]urn(?:s|ed|t|ing)?\b", "deduct, use"),
        (r"\bin force\b", "current, active"),
        (r"\bstands?\b(?!-in\b| (?:in )?for\b)", "is, is found"),
        (r"\b(?:comes?|came|coming) to\b(?! an end\b)", "is, results in, reaches"),
        (r"\b(?:[Hh]ouses?|[Vv]oices?|[Pp]urses?|[Dd]esks?|[Mm]anners?)\b", "the field's term"),
        (r"\b(?:in|from|into|its|their) hands?\b", "the field's term"),
        (r"\b(?:[Hh]ears?|[Hh]eard|unheard|drinks?|dearest|[Hh]urry|[Hh]urrying|seldom|elders?|owed|owes)\b",
         "the literal term: receives, expensive, rarely, oldest, must pay"),
        (r"(?:^|(?<=[.:;] )|(?<=\s\s))(?:What|Who|Whoever|Whatever)\b(?![^.]*\?)", _CLAUSE),
        (r"(?<=; )(?:what|who)\b(?![^.]*\?)", _CLAUSE),
    ]
]  # fmt: skip


class Hit(NamedTuple):
    path: str
    line: int
    word: str
    advice: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.word}: write instead: {self.advice}"


def hits_of(path, text):
    """Every banned word of a file, by line. `path` is relative to the repository; of *.lua only comments count."""
    if path.endswith((".lua", ".md")):
        proses = _lua_comments(text) if path.endswith(".lua") else _paragraphs(text)
        return [Hit(path, *rest) for line, prose in proses for rest in _in_prose(line, prose)]
    tree = ast.parse(text)
    if path.startswith("tests/"):
        proses = _sentences_of_tests(tree)
        return [Hit(path, *rest) for line, prose in proses for rest in _in_prose(line, prose)]
    names = [(1, Path(path).stem, True), *_names(tree)]
    hits = [(line, name, advice) for line, name, defined in names if (advice := _advice(name, defined))]
    hits += [rest for line, prose in [*_comments(text), *_strings(tree)] for rest in _in_prose(line, prose)]
    return [Hit(path, *rest) for rest in sorted(set(hits))]


def _lua_comments(text):
    return [(number, line.partition("--")[2]) for number, line in enumerate(text.splitlines(), 1)]


# Of Markdown: code, what `sidecar schema` writes, comments, targets of links; then marks of lists, bold text, headings.
_NOT_PROSE = re.compile(
    r"^```.*?^```|<!-- (\w+) -->.*?<!-- end of \1 -->|<!--.*?-->|\]\([^)\s]*\)", re.DOTALL | re.MULTILINE
)
_MARKS = re.compile(r"^\s*(?:[-*]|\d+\.)(?= )|^#+ (?:What|Who)\b|\*\*", re.MULTILINE)


def _paragraphs(text):
    """(line, paragraph) of a Markdown document, without what is not prose."""
    for pattern in (_NOT_PROSE, _MARKS):
        text = pattern.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    line = 1
    for part in re.split(r"(\n\s*\n)", text):
        yield line, part
        line += part.count("\n")


def _sentences_of_tests(tree):
    """(line, the name of a test as a sentence, or a docstring), but for those of old tests."""
    old = frozenset(OLD_TESTS.read_text().splitlines())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = getattr(node, "name", "")
            if name.startswith("test_") and name not in old:
                yield node.lineno, name.replace("_", " ")
            docstring = ast.get_docstring(node, clean=False)
            if docstring is not None and docstring.partition("\n")[0] not in old:
                yield node.body[0].lineno, docstring


def _names(tree):
    """(line, name, whether it is that of a class or function)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name, True
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg, False
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id, False
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr, False
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname, False


def _advice(name, defined):
    bare = name.strip("_")
    if ALLOWED_NAMES.search(bare):
        return None
    words = [word.lower() for word in re.findall(r"ClickHouse|[A-Z]?[a-z]+|[A-Z]+(?![a-z])", bare)]
    advice = next((WORDS_OF_NAMES[word] for word in words if word in WORDS_OF_NAMES), None)
    return advice or WHOLE_NAMES.get(bare) or (DEFINITIONS.get(bare) if defined else None)


def _comments(text):
    """The comments; consecutive lines of nothing else are one text, since a phrase may continue on the next line."""
    block, last = [], 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0]
            if block and (line != last + 1 or token.line[: token.start[1]].strip()):
                yield last - len(block) + 1, "\n".join(block)
                block = []
            block.append(token.string.lstrip("# "))
            last = line
    yield last - len(block) + 1, "\n".join(block)


def _strings(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def _in_prose(line, prose):
    plain = re.sub(r"`[^`\n]*`|\"\w+\"|'\w+'", lambda quoted: "_" * len(quoted[0]), prose)
    plain = re.sub(r"\n[ \t]+", "\n", plain)
    flat = plain.replace("\n", " ")
    for pattern, advice in PHRASES:
        for match in pattern.finditer(flat):
            yield line + plain.count("\n", 0, match.start()), match[0], advice


def all_hits(beginnings=("",)):
    """The hits in all files that are checked and whose paths begin with one of `beginnings`, in order."""
    files = [path for place in ("sidecar", "tests", "docs") for path in sorted((ROOT / place).rglob("*"))]
    paths = [path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), ROOT / "hatch_build.py", *files]]
    chosen = [path for path in paths if path.startswith(tuple(beginnings)) and _is_checked(path)]
    return [hit for path in chosen for hit in hits_of(path, (ROOT / path).read_text())]


def _is_checked(path):
    if path.endswith(".md"):
        return path.startswith(DOCUMENTS)
    return path.endswith(".py") or (path.startswith("sidecar/") and path.endswith(".lua"))


def main(arguments):
    hits = all_hits(arguments or ("",))
    print(*hits, sep="\n", end="\n" if hits else "", file=sys.stderr)
    return bool(hits)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
