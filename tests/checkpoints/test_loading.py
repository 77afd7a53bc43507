"""Reading weights: official layouts come out whole, hostile pickles come out inert."""

from __future__ import annotations

import builtins
import collections
import contextlib
import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from checkpoints import CheckpointError, find, load_state_dict

FORMATS = pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])


def example() -> OrderedDict[str, torch.Tensor]:
    torch.manual_seed(0)
    shared = torch.randn(4, 6)
    tensors: OrderedDict[str, torch.Tensor] = OrderedDict()
    tensors["block.weight"] = torch.nn.Parameter(torch.randn(3, 4))
    tensors["block.transposed"] = shared.t()
    tensors["block.part"] = shared[1:3, 2:]
    tensors["half"] = torch.randn(5).half()
    tensors["num_batches_tracked"] = torch.tensor(7)
    return tensors


def assert_same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(actual) == list(expected)
    for key, value in expected.items():
        assert actual[key].dtype == value.dtype and not actual[key].requires_grad
        assert torch.equal(actual[key], value)


def save(content: Any, file: Path, zip_format: bool) -> Path:
    torch.save(content, file, _use_new_zipfile_serialization=zip_format)
    return file


# --------------------------------------------------------------------------- friendly files


def test_safetensors(tmp_path: Path) -> None:
    tensors = {key: value.detach().contiguous().clone() for key, value in example().items()}
    save_file(tensors, tmp_path / "net.safetensors")
    loaded = load_state_dict(tmp_path / "net.safetensors")
    assert_same(dict(sorted(loaded.items())), dict(sorted(tensors.items())))


def test_the_bundled_tracker() -> None:
    seed = find("mixformerv2_small_seed")
    assert seed
    tensors = load_state_dict(seed)
    assert len(tensors) == 66
    assert sum(tensor.numel() for tensor in tensors.values()) == 16_228_897
    assert tensors["backbone.pos_embed_t"].shape == (1, 49, 768)


@FORMATS
@pytest.mark.parametrize("entry", [None, "net", "params", "model", "state_dict"])
def test_plain_files_of_torch(tmp_path: Path, zip_format: bool, entry: str | None) -> None:
    content = {entry: example(), "epoch": 3, "optimizer": {"lr": 0.1}} if entry else example()
    file = save(content, tmp_path / "net.pth", zip_format)
    assert_same(load_state_dict(file), example())


def test_the_first_entry_in_the_documented_order_counts(tmp_path: Path) -> None:
    other = {"x": torch.zeros(1)}
    content = {"state_dict": other, "model": other, "params": other, "net": example()}
    assert_same(load_state_dict(save(content, tmp_path / "net.pth", True)), example())


def test_a_tensor_may_be_called_net(tmp_path: Path) -> None:
    content = {"net": torch.ones(2), "model": torch.zeros(2)}
    assert_same(load_state_dict(save(content, tmp_path / "net.pth", True)), content)


@pytest.fixture
def upstream() -> Iterator[types.ModuleType]:
    """The trainer's classes, importable while a file is written and gone when it is read."""
    names = ["lib", "lib.train", "lib.train.admin", "lib.train.admin.settings"]
    for name in names:
        sys.modules[name] = types.ModuleType(name)
    module = sys.modules[names[-1]]
    for name in ("Settings", "EnvSettings", "StatValue", "AverageMeter"):
        setattr(module, name, type(name, (), {"__module__": module.__name__}))
    yield module
    for name in names:
        sys.modules.pop(name, None)


@FORMATS
def test_official_tracker_files(
    tmp_path: Path, zip_format: bool, upstream: types.ModuleType
) -> None:
    settings, meter = upstream.Settings(), upstream.AverageMeter()
    settings.env = upstream.EnvSettings()
    settings.env.paths = ["/home/author"]
    settings.rate = np.float64(1e-4)  # numpy scalars name numpy's classes
    settings.numbers = np.arange(3)
    settings.kinds = {upstream.StatValue, upstream.Settings}
    meter.history = [np.float32(0.5)]
    content = {
        "epoch": 500,
        "actor_type": "MixFormerActor",
        "net_type": "MixFormer",
        "net": example(),
        "net_info": None,
        "constructor": upstream.StatValue,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-4}]},
        "stats": OrderedDict(train=OrderedDict(loss=meter)),
        "settings": settings,
    }
    file = save(content, tmp_path / "mixformerv2_small.pth.tar", zip_format)
    for name in ("lib", "lib.train", "lib.train.admin", "lib.train.admin.settings"):
        del sys.modules[name]
    with pytest.raises(pickle.UnpicklingError):  # why the unpickler of our own is needed
        torch.load(file, weights_only=True)
    assert_same(load_state_dict(file), example())
    assert "lib" not in sys.modules


def test_metadata_of_a_module_survives_quietly(tmp_path: Path) -> None:
    state = torch.nn.BatchNorm1d(3).state_dict()
    assert hasattr(state, "_metadata")
    file = save({"net": state, "settings": collections.Counter()}, tmp_path / "n.pth", True)
    assert_same(load_state_dict(file), state)


# ---------------------------------------------------------------------------- hostile files


class Call:
    """Pickles as the call of any callable with any arguments."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def hostile(marker: Path) -> dict[str, Call]:
    """Programs that leave `marker` behind."""
    write, touch = f"open({str(marker)!r}, 'w').close()", f"touch {marker}"
    return {
        "os.system": Call(os.system, touch),
        "eval": Call(builtins.eval, write),
        "exec": Call(builtins.exec, write),
        "open": Call(builtins.open, str(marker), "w"),
        "subprocess": Call(subprocess.check_output, ["touch", str(marker)]),
        "nested getattr": Call(Call(getattr, Call(__import__, "os"), "system"), touch),
        "nested pickle": Call(pickle.loads, pickle.dumps(Call(os.system, touch))),
        "as an argument": Call(torch._utils._rebuild_tensor_v2, Call(os.system, touch)),
    }


KINDS = pytest.mark.parametrize("kind", hostile(Path()))
PLACES = pytest.mark.parametrize(
    "place", ["zip", "legacy", "legacy protocol", "legacy system", "beside net", "inside net"]
)


def dumps(content: Any) -> bytes:
    """Pickle by hand: the pickler itself does not let a call's result be called."""

    def code(value: Any) -> bytes:
        if isinstance(value, Call):
            function = (
                code(value.function)
                if isinstance(value.function, Call)
                else f"c{value.function.__module__}\n{value.function.__qualname__}\n".encode()
            )
            return function + b"(" + b"".join(map(code, value.arguments)) + b"tR"
        return pickle.dumps(value, protocol=2)[2:-1]

    return b"\x80\x02" + code(content) + b"."


MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)


def write_zip(file: Path, program: bytes) -> Path:
    """A torch zip file whose pickle is `program`."""
    with zipfile.ZipFile(file, "w") as bundle:
        bundle.writestr("archive/data.pkl", program)
        bundle.writestr("archive/byteorder", "little")
        bundle.writestr("archive/version", "3\n")
    return file


def write_legacy(file: Path, program: bytes, position: int = 3) -> Path:
    """A legacy torch file, of whose pickles (magic, protocol, system, content) one is `program`."""
    pickles = [MAGIC, pickle.dumps(1001, 2), pickle.dumps({"little_endian": True}, 2), b""]
    pickles[position] = program
    file.write_bytes(b"".join(pickles) + pickle.dumps([], 2))
    return file


def write_hostile(file: Path, kind: str, place: str, marker: Path) -> Path:
    program = dumps(hostile(marker)[kind])
    body = program[2:-1]
    if place == "zip":
        return write_zip(file, program)
    if place == "beside net":
        return write_zip(file, b"\x80\x02}(X\x03\x00\x00\x00net}X\x01\x00\x00\x00s" + body + b"u.")
    if place == "inside net":
        net = b"}X\x01\x00\x00\x00w" + body + b"s"
        return write_zip(file, b"\x80\x02}X\x03\x00\x00\x00net" + net + b"s.")
    positions = {"legacy": 3, "legacy protocol": 1, "legacy system": 2}
    return write_legacy(file, program, positions[place])


@KINDS
@PLACES
def test_the_files_are_really_hostile(tmp_path: Path, kind: str, place: str) -> None:
    """An unguarded torch.load runs them, so the next test could fail."""
    marker = tmp_path / "marker"
    file = write_hostile(tmp_path / "net.pth", kind, place, marker)
    with contextlib.suppress(Exception):
        torch.load(file, weights_only=False)
    assert marker.exists()


@KINDS
@PLACES
def test_nothing_of_a_hostile_file_runs(tmp_path: Path, kind: str, place: str) -> None:
    marker = tmp_path / "marker"
    file = write_hostile(tmp_path / "net.pth", kind, place, marker)
    with pytest.raises(CheckpointError):
        load_state_dict(file)
    assert not marker.exists()


@FORMATS
@pytest.mark.parametrize("kind", ["os.system", "eval", "open"])
def test_weights_beside_a_hostile_object_come_out_and_nothing_runs(
    tmp_path: Path, zip_format: bool, kind: str
) -> None:
    marker = tmp_path / "marker"
    content = {"settings": hostile(marker)[kind], "net": example()}
    file = save(content, tmp_path / "net.pth.tar", zip_format)
    assert_same(load_state_dict(file), example())
    assert not marker.exists()


def global_(name: str) -> bytes:
    return b"c" + name.replace(" ", "\n").encode() + b"\n"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize(
    "program",
    [
        b"(" + b"Vecho\n" + b"ios\nsystem\n.",  # INST
        b"(" + global_("os system") + b"Vecho\no.",  # OBJ
        global_("os system") + b")\x81.",  # NEWOBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04echo\x85R.",  # STACK_GLOBAL
        b"\x80\x04\x8c\x08builtins\x8c\x0bexec.__call\x93.",  # a dotted name
        b"\x82\x01.",  # EXT1
        global_("os environ") + b"}Vx\nVy\nsb.",  # BUILD on a stand-in
        global_("lib.x Y") + b")R" + b"Vk\nVv\ns" + b"(I1\nI2\ne" + b"I3\na.",  # contents
        global_("collections OrderedDict") + b"N}Vmove_to_end\nI1\ns\x86b.",
    ],
)
def test_opcodes_that_reach_for_objects(tmp_path: Path, program: bytes) -> None:
    for write in (write_zip, write_legacy):
        with pytest.raises(CheckpointError):
            load_state_dict(write(tmp_path / "net.pth", program))


@pytest.mark.parametrize("name", ["_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_tensor"])
@pytest.mark.parametrize("state", [b"}V__defaults__\nI1\n\x85s", b"N}V__defaults__\nI1\n\x85s\x86"])
def test_a_pickle_cannot_change_torch_functions(tmp_path: Path, name: str, state: bytes) -> None:
    function = getattr(torch._utils, name)
    before = (function.__defaults__, dict(function.__dict__))
    # The unknown name first makes sure that our unpickler is the one that reads it.
    program = (
        b"\x80\x02" + global_("lib.x Y") + b"0" + global_(f"torch._utils {name}") + state + b"b."
    )
    with pytest.raises(CheckpointError):
        load_state_dict(write_zip(tmp_path / "net.pth", program))
    assert (function.__defaults__, dict(function.__dict__)) == before


def test_a_compiled_model_is_refused(tmp_path: Path) -> None:
    """torch.load would hand it to the reader of TorchScript."""
    file = save({"a": torch.ones(1)}, tmp_path / "net.pth", True)
    with zipfile.ZipFile(file, "a") as bundle:
        bundle.writestr("net/constants.pkl", pickle.dumps((), 2))
    with pytest.raises(CheckpointError, match="compiled TorchScript"):
        load_state_dict(file)


def test_a_real_tar_is_refused(tmp_path: Path) -> None:
    """The oldest torch files; torch would unpack them to a temporary folder."""
    file = tmp_path / "net.pth.tar"
    with tarfile.open(file, "w") as bundle:
        bundle.addfile(tarfile.TarInfo("pickle"), io.BytesIO())
    with pytest.raises(CheckpointError, match="neither a safetensors file nor"):
        load_state_dict(file)


# ---------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>Google Drive - Quota exceeded", "is an HTML page"),
        (b"<html><body>404", "is an HTML page"),
        (b"\x80\x04}.", "is neither a safetensors file nor one written by torch.save"),
        (b"just text", "is neither"),
        (struct.pack("<Q", 9999) + b'{"a"', "is neither"),
        (b"\0\0\0\0\0\0\0\0{}", "is neither"),
    ],
)
def test_what_is_no_weight_file(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "net.pth"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"net.pth {reason}"):
        load_state_dict(file)


@FORMATS
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_file_cut_off_on_the_way(tmp_path: Path, zip_format: bool, share: float) -> None:
    file = save({"net": example(), "s": collections.Counter()}, tmp_path / "net.pth", zip_format)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"net\.pth is (cut off|damaged|neither)"):
        load_state_dict(file)


def test_a_safetensors_file_cut_off_on_the_way(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    save_file({"a": torch.ones(1000)}, file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"is damaged"):
        load_state_dict(file)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([torch.ones(1)], "holds no named tensors"),
        ({}, "holds no named tensors"),
        (torch.ones(1), "holds no named tensors"),
        ({"a": torch.ones(1), "lr": 0.1}, r"holds more than named tensors: \['lr'\]"),
        ({1: torch.ones(1)}, "holds more than named tensors"),
        ({"net": {"a": torch.ones(1), "b": None}}, r"holds more than named tensors: \['b'\]"),
    ],
)
def test_files_that_hold_no_state_dict(tmp_path: Path, content: Any, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        load_state_dict(save(content, tmp_path / "net.pth", True))


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": "w.index.json"}}']
)
def test_an_index_that_names_no_weights(tmp_path: Path, content: str) -> None:
    index = tmp_path / "w.index.json"
    index.write_text(content)
    with pytest.raises(CheckpointError, match="does not say which files hold the weights"):
        load_state_dict(index)


def test_an_index_leads_to_its_neighbours_only(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    index = tmp_path / "inside" / "w.index.json"
    index.parent.mkdir()
    index.write_text('{"weight_map": {"a": "../a.safetensors"}}')
    with pytest.raises(CheckpointError, match=r"inside/a.safetensors cannot be read"):
        load_state_dict(index)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none.pth cannot be read \(No such file"):
        load_state_dict(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match=r"cannot be read \(Is a directory"):
        load_state_dict(tmp_path)
