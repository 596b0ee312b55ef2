#!/usr/bin/env python3
"""Asserts the shape of the workspace: which package may depend on which, and what all inherit.

    .ci/arrows.py              check the workspace this file lies in
    .ci/arrows.py --self-test  check that every rule is able to fail

Arrows point down only:

    node -> manager -> {transport, discovery, pubsub, blob -> stream, specialized} -> {exchange -> primitives}

A dependency may go to any lower layer. Within a layer two are allowed, blob -> stream and
exchange -> primitives; a
development dependency may point sideways, because tests join what programs join, but never up.
Python 3.11 or newer, standard library only.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

PREFIX = "calimero-network"
LAYERS = {
    f"{PREFIX}-primitives": 0,
    f"{PREFIX}-exchange": 0,
    f"{PREFIX}-transport": 1,
    f"{PREFIX}-discovery": 1,
    f"{PREFIX}-pubsub": 1,
    f"{PREFIX}-blob": 1,
    f"{PREFIX}-stream": 1,
    f"{PREFIX}-specialized": 1,
    PREFIX: 2,
    f"{PREFIX}-node": 3,
}
SIBLINGS = {
    (f"{PREFIX}-blob", f"{PREFIX}-stream"),
    (f"{PREFIX}-exchange", f"{PREFIX}-primitives"),
}
# Without these there is no network at all, so a workspace that lacks one is broken.
REQUIRED = {
    f"{PREFIX}-primitives",
    f"{PREFIX}-transport",
    f"{PREFIX}-stream",
    PREFIX,
    f"{PREFIX}-node",
}
# Measure or show every layer, so they may depend on all of them, and none on them.
BENCH_DIRECTORY = "crates/bench"
EXAMPLES_DIRECTORY = "examples"
# The facade compiles every protocol of libp2p's; the protocol crates take the small crates.
FACADE = "libp2p"
FACADE_LAYER = 2


def is_outside(package, root):
    """Whether this is the benchmarks or an example: by its place, and because it is not published."""
    folder = Path(package["manifest_path"]).parent
    places = folder == Path(root) / BENCH_DIRECTORY, folder.parent == Path(root) / EXAMPLES_DIRECTORY
    return any(places) and package["publish"] == []


def arrow_violation(source, target, kind):
    """Why `source` may not depend on `target`, or None."""
    if source == target:
        return None
    here, there = LAYERS[source], LAYERS[target]
    if there < here or (source, target) in SIBLINGS:
        return None
    if there == here and kind == "dev":
        return None
    return "points up" if there > here else "points sideways"


def package_violations(package, manifest, rust_version):
    """What `package` fails to inherit from the workspace."""
    name = package["name"]
    if manifest.get("lints", {}).get("workspace") is not True:
        yield f"{name}: does not inherit the lints of the workspace"
    if manifest.get("package", {}).get("rust-version") != {"workspace": True}:
        yield f"{name}: does not inherit the rust-version of the workspace"
    if package["rust_version"] != rust_version:
        yield f"{name}: rust-version {package['rust_version']}, the workspace has {rust_version}"


def dependency_violations(package, members, root):
    """Which dependencies of `package` break an arrow."""
    name = package["name"]
    outside = is_outside(package, root)
    if not outside and name not in LAYERS:
        yield f"{name}: has no place in the house"
        return
    for dependency in package["dependencies"]:
        target = dependency["name"]
        kind = dependency["kind"] or "normal"
        arrow = f"{name} -> {target} ({kind})"
        if outside:
            continue
        if target == FACADE and kind != "dev" and LAYERS[name] < FACADE_LAYER:
            yield f"{arrow}: the facade is for the manager and the node"
        if target not in members:
            continue
        if is_outside(members[target], root):
            yield f"{arrow}: nothing depends on benchmarks and examples"
        elif target not in LAYERS:
            yield f"{arrow}: has no place in the house"
        elif reason := arrow_violation(name, target, kind):
            yield f"{arrow}: {reason}"


def version(text):
    """A version of Rust as numbers that can be compared."""
    numbers = [int(part) for part in text.split("-")[0].split(".")]
    return tuple(numbers + [0] * (3 - len(numbers)))


def violations(metadata, manifests, rust_version):
    """Everything that is wrong with a workspace, as sentences.

    `metadata` is what `cargo metadata` says, `manifests` the parsed Cargo.toml of each member by
    package name, `rust_version` what the workspace declares.
    """
    root = metadata["workspace_root"]
    ids = set(metadata["workspace_members"])
    members = {p["name"]: p for p in metadata["packages"] if p["id"] in ids}
    for name in sorted(REQUIRED - set(members)):
        yield f"{name}: is not there"
    for name, package in sorted(members.items()):
        yield from package_violations(package, manifests[name], rust_version)
        yield from dependency_violations(package, members, root)
    for package in metadata["packages"]:
        needed = package["rust_version"]
        if package["id"] not in ids and needed and version(needed) > version(rust_version):
            yield (
                f"{package['name']} {package['version']}: needs Rust {needed}, "
                f"the workspace promises {rust_version}"
            )


def read_toml(path):
    with open(path, "rb") as file:
        return tomllib.load(file)


def check_workspace():
    root = Path(__file__).resolve().parent.parent
    command = ["cargo", "metadata", "--format-version=1", "--locked"]
    metadata = json.loads(subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE).stdout)
    ids = set(metadata["workspace_members"])
    manifests = {
        package["name"]: read_toml(package["manifest_path"])
        for package in metadata["packages"]
        if package["id"] in ids
    }
    rust_version = read_toml(root / "Cargo.toml")["workspace"]["package"]["rust-version"]
    found = list(violations(metadata, manifests, rust_version))
    for violation in found:
        print(violation)
    print(f"{len(manifests)} packages, {len(metadata['packages'])} with dependencies, {len(found)} violations")
    return not found


# Self-test: a sound workspace, and one change for each rule that must be noticed.

RUST = "1.88"


def synthetic():
    """A sound workspace of every package, as `violations` takes it."""
    arrows = {
        f"{PREFIX}-primitives": [],
        f"{PREFIX}-transport": [f"{PREFIX}-primitives"],
        f"{PREFIX}-exchange": [f"{PREFIX}-primitives"],
        f"{PREFIX}-discovery": [f"{PREFIX}-primitives", f"{PREFIX}-exchange"],
        f"{PREFIX}-pubsub": [f"{PREFIX}-primitives"],
        f"{PREFIX}-stream": [f"{PREFIX}-primitives", f"{PREFIX}-exchange"],
        f"{PREFIX}-blob": [f"{PREFIX}-stream", f"{PREFIX}-primitives"],
        f"{PREFIX}-specialized": [f"{PREFIX}-primitives", f"{PREFIX}-exchange"],
        PREFIX: [f"{PREFIX}-transport", f"{PREFIX}-discovery", f"{PREFIX}-blob", FACADE],
        f"{PREFIX}-node": [PREFIX, f"{PREFIX}-primitives", FACADE],
        f"{PREFIX}-bench": [PREFIX, f"{PREFIX}-stream", FACADE],
    }
    packages = [
        {
            "id": name,
            "name": name,
            "version": "0.1.0",
            "rust_version": RUST,
            "publish": [] if name.endswith("-bench") else None,
            "manifest_path": f"/w/crates/{name.removeprefix(PREFIX + '-')}/Cargo.toml",
            "dependencies": [{"name": target, "kind": None} for target in targets],
        }
        for name, targets in arrows.items()
    ]
    foreign = {
        "id": FACADE,
        "name": FACADE,
        "version": "0.57.1",
        "rust_version": "1.88.0",
        "publish": None,
        "manifest_path": "/registry/libp2p/Cargo.toml",
        "dependencies": [],
    }
    metadata = {
        "workspace_root": "/w",
        "workspace_members": list(arrows),
        "packages": [*packages, foreign],
    }
    manifest = {"package": {"rust-version": {"workspace": True}}, "lints": {"workspace": True}}
    return metadata, {name: json.loads(json.dumps(manifest)) for name in arrows}


def self_test():
    def package(metadata, name):
        return next(p for p in metadata["packages"] if p["name"] == name)

    def depend(source, target, kind=None):
        def change(metadata, _):
            package(metadata, source)["dependencies"].append({"name": target, "kind": kind})

        return change

    def put(name, key, value):
        def change(metadata, _):
            package(metadata, name)[key] = value

        return change

    def remove(name):
        def change(metadata, _):
            metadata["workspace_members"].remove(name)

        return change

    def drop(name, key):
        def change(_, manifests):
            del manifests[name][key]

        return change

    def own_version(_, manifests):
        manifests[PREFIX]["package"]["rust-version"] = RUST

    def rename(metadata, manifests):
        package(metadata, f"{PREFIX}-pubsub")["name"] = "newcomer"
        manifests["newcomer"] = manifests[f"{PREFIX}-pubsub"]

    def nothing(_metadata, _manifests):
        pass

    primitives, transport, stream = (f"{PREFIX}-{n}" for n in ("primitives", "transport", "stream"))
    blob, bench, node = (f"{PREFIX}-{n}" for n in ("blob", "bench", "node"))
    cases = [
        ("a sound workspace", nothing, None),
        ("a shortcut downwards", depend(node, stream), None),
        ("a test that points sideways", depend(stream, transport, "dev"), None),
        ("a test that depends on its own crate", depend(stream, stream, "dev"), None),
        ("a test that uses the facade", depend(stream, FACADE, "dev"), None),
        ("a lower dependency version of Rust", put(FACADE, "rust_version", "1.60"), None),
        ("an undeclared version of Rust", put(FACADE, "rust_version", None), None),
        ("an arrow up", depend(primitives, transport), "points up"),
        ("an arrow up by two", depend(transport, node), "points up"),
        ("an arrow up in tests", depend(primitives, stream, "dev"), "points up"),
        ("an arrow up in a build script", depend(stream, PREFIX, "build"), "points up"),
        ("an arrow sideways", depend(transport, stream), "points sideways"),
        ("the sibling arrow backwards", depend(stream, blob), "points sideways"),
        ("an arrow sideways in a build script", depend(transport, stream, "build"), "points sideways"),
        ("an arrow to the benchmarks", depend(node, bench), "nothing depends on benchmarks and examples"),
        ("benchmarks that are published", put(bench, "publish", None), "no place in the house"),
        ("benchmarks elsewhere", put(bench, "manifest_path", "/w/bench/Cargo.toml"), "no place in the house"),
        ("an example", put(bench, "manifest_path", "/w/examples/bench/Cargo.toml"), None),
        ("an example deeper down", put(bench, "manifest_path", "/w/examples/a/b/Cargo.toml"), "no place in the house"),
        ("a package nobody knows", rename, "no place in the house"),
        ("the facade in a protocol crate", depend(stream, FACADE), "the facade is for"),
        ("a package that is gone", remove(transport), "is not there"),
        ("lints of its own", drop(stream, "lints"), "does not inherit the lints"),
        ("a rust-version of its own", own_version, "does not inherit the rust-version"),
        ("no package table", drop(stream, "package"), "does not inherit the rust-version"),
        ("another rust-version", put(stream, "rust_version", "1.90"), "rust-version 1.90"),
        ("a dependency that needs more", put(FACADE, "rust_version", "1.88.1"), "needs Rust 1.88.1"),
        ("a dependency that needs much more", put(FACADE, "rust_version", "1.100"), "needs Rust 1.100"),
    ]
    failed = 0
    for name, change, expected in cases:
        metadata, manifests = synthetic()
        change(metadata, manifests)
        found = list(violations(metadata, manifests, RUST))
        sound = found == [] if expected is None else any(expected in each for each in found)
        if not sound:
            failed += 1
            print(f"self-test, {name}: expected {expected!r}, found {found}")
    print(f"self-test: {len(cases)} cases, {failed} failed")
    return failed == 0


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--self-test"]):
        sys.exit(__doc__)
    sys.exit(0 if (self_test() if sys.argv[1:] else check_workspace()) else 1)
