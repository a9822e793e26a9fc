"""Our `.proto` files: read as `protoc` reads them, and the same on the wire as those of others."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import grpc_tools
import pytest
import tritonclient.grpc.service_pb2 as triton
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from fingerpost.basics.proto_file import read_proto
from fingerpost.worker.grpc.schema.messages import FILES, pool

PB2: Any = descriptor_pb2  # its classes are made when it is imported
PROTOS = Path(str(files("fingerpost.worker.grpc.schema") / "protos"))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    target = tmp_path_factory.mktemp("protoc") / "set"
    shipped = Path(grpc_tools.__file__).parent / "_proto"
    arguments = [f"-I{PROTOS}", f"-I{shipped}", f"--descriptor_set_out={target}", *FILES]
    assert protoc.main(["protoc", *arguments]) == 0
    found = PB2.FileDescriptorSet.FromString(target.read_bytes())
    return {each.name: each for each in found.file}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_what_protoc_makes_of_it(compiled: dict[str, Any], name: str) -> None:
    ours = PB2.FileDescriptorProto()
    pool().FindFileByName(name).CopyToProto(ours)
    # The pool knows the types that the text only names.
    assert fields_of(ours) == fields_of(compiled[name])
    assert ours.package == compiled[name].package


def fields_of(file: Any) -> dict[str, tuple[object, ...]]:
    """Every field by its full name: number, type, label, and the oneof that it is in."""
    found: dict[str, tuple[object, ...]] = {}

    def add(message, path: str) -> None:
        for each in message.field:
            oneof = (
                message.oneof_decl[each.oneof_index].name if each.HasField("oneof_index") else ""
            )
            found[f"{path}.{each.name}"] = (
                each.number,
                each.type,
                each.label,
                each.type_name,
                oneof,
                message.options.map_entry,
            )
        for inner in message.nested_type:
            add(inner, f"{path}.{inner.name}")
        for enum in message.enum_type:
            found[f"{path}.{enum.name}"] = tuple((v.name, v.number) for v in enum.value)

    for message in file.message_type:
        add(message, f"{file.package}.{message.name}")
    for enum in file.enum_type:
        found[enum.name] = tuple((v.name, v.number) for v in enum.value)
    for service in file.service:
        for method in service.method:
            found[f"{service.name}/{method.name}"] = (
                method.input_type,
                method.output_type,
                method.client_streaming,
                method.server_streaming,
            )
    return found


def test_inference_is_tritons() -> None:
    """Each of our fields and methods is one of Triton's, with its number and type."""
    theirs = PB2.FileDescriptorProto()
    triton.DESCRIPTOR.CopyToProto(theirs)
    config = PB2.FileDescriptorProto()
    triton.DESCRIPTOR.dependencies[0].CopyToProto(config)
    known = fields_of(theirs) | fields_of(config)
    ours = PB2.FileDescriptorProto()
    pool().FindFileByName("inference.proto").CopyToProto(ours)
    found = fields_of(ours)
    assert len(found) > 100
    assert {name: known.get(name) for name in found} == found


WRONG = {
    "an option": 'syntax = "proto3"; option java_package = "x";',
    "the end": 'syntax = "proto3"; message A { int32 b = 1;',
    "no number": "message A { int32 b; }",
    "a word": "message A { int32 b = c; }",
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_read_is_an_error(case: str) -> None:
    with pytest.raises(ValueError):
        read_proto(WRONG[case], "wrong.proto")
