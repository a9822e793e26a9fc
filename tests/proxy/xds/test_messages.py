"""The `.proto` files of xDS are read as `protoc` reads them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import grpc_tools
from grpc_tools import protoc
from tests.worker.grpc.schema.test_proto_file import PB2, fields_of

from fingerpost.proxy.xds.messages import FILES, pool


def test_every_file_is_what_protoc_makes_of_it(tmp_path: Path) -> None:
    folder = Path(str(files("fingerpost.proxy.xds") / "protos"))
    assert {each.name for each in folder.glob("*.proto")} == {*FILES}
    target, shipped = tmp_path / "set", Path(grpc_tools.__file__).parent / "_proto"
    arguments = [f"-I{folder}", f"-I{shipped}", f"--descriptor_set_out={target}", *FILES]
    assert protoc.main(["protoc", *arguments]) == 0
    compiled = PB2.FileDescriptorSet.FromString(target.read_bytes()).file
    assert len(compiled) == len(FILES)
    for each in compiled:
        ours = PB2.FileDescriptorProto()
        pool().FindFileByName(each.name).CopyToProto(ours)
        assert ours.package == each.package
        assert fields_of(ours) == fields_of(each)
