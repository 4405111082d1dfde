"""Whatever is done to a firmware file, it is either the one that was signed or refused with a typed error."""

from __future__ import annotations

import contextlib
import json
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ess_can.errors import EssCanError, ImageInvalid, ManifestInvalid
from ess_can.identity import NodeType, Version
from ess_can.image.manifest import Dependency, ImageEntry, Manifest, encode_manifest, parse_manifest
from ess_can.image.node_image import MAGIC, build_node_image, parse_node_image
from ess_can.image.readers import FirmwareFormat, parse_firmware
from ess_can.image.upgrade_file import assemble, split_upgrade_file
from ess_can.trust.verify import open_upgrade_file, verify_node_image
from tests.firmware_images import FIRMWARE, RELEASE, RING, small_image, small_upgrade

U32 = st.integers(0, 0xFFFF_FFFF)
VERSIONS = st.builds(Version, st.integers(0, 255), st.integers(0, 255), st.integers(0, 0xFFFF), U32)
HARDWARE_IDS = st.sets(st.integers(0, 255), min_size=1, max_size=8).map(lambda numbers: tuple(sorted(numbers)))
DATES = st.dates(date(1, 1, 1), date(9999, 12, 31))
NAMES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9 ._+()-]{0,62}[A-Za-z0-9)])?", fullmatch=True)


@given(st.binary(min_size=1, max_size=300), VERSIONS, st.sampled_from(NodeType), HARDWARE_IDS, U32)
@settings(max_examples=100, deadline=None)
def test_an_image_reads_as_it_was_built(
    payload: bytes, version: Version, node_type: NodeType, hardware_ids: tuple[int, ...], counter: int
) -> None:
    image = build_node_image(
        payload,
        version=version,
        node_type=node_type,
        hardware_ids=hardware_ids,
        security_counter=counter,
        signer=FIRMWARE,
    )
    facts = verify_node_image(image, RING).facts
    assert facts == parse_node_image(image)
    assert (facts.version, facts.node_type, facts.hardware_ids) == (version, node_type, hardware_ids)
    assert (facts.security_counter, facts.payload_size, facts.size) == (counter, len(payload), len(image))


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    targets = draw(
        st.lists(st.tuples(st.sampled_from(NodeType), st.integers(0, 255)), min_size=1, max_size=5, unique=True)
    )
    images = []
    for node_type, hardware_id in targets:
        others = draw(st.sets(st.sampled_from([other for other in NodeType if other is not node_type])))
        images.append(
            ImageEntry(
                node_type,
                (hardware_id,),
                draw(VERSIONS),
                draw(U32),
                draw(st.integers(1, 0xFFFF_FFFF)),
                draw(st.binary(min_size=32, max_size=32)),
                draw(U32),
                tuple(Dependency(other, draw(VERSIONS)) for other in sorted(others)),
            )
        )
    created = draw(DATES.filter(lambda day: day < date(9999, 1, 1)))
    expires = draw(st.none() | st.just(created + timedelta(days=30)))
    return Manifest(draw(NAMES), draw(VERSIONS), created, tuple(images), expires)


@given(manifests())
@settings(max_examples=100, deadline=None)
def test_a_manifest_reads_as_it_was_written(manifest: Manifest) -> None:
    data = encode_manifest(manifest)
    assert parse_manifest(data) == manifest
    assert encode_manifest(parse_manifest(data)) == data


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_patched_files_raise_typed_errors_only(data: st.DataObject) -> None:
    good = data.draw(st.sampled_from([small_upgrade(), small_image()]))
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 40)))
    bad = good[:start] + data.draw(st.binary(max_size=60)) + good[end:]
    if bad == good:
        return
    for check in (open_upgrade_file, verify_node_image):
        with pytest.raises(EssCanError):
            check(bad, RING)


@given(st.binary(max_size=700))
@settings(max_examples=200, deadline=None)
def test_parsers_raise_typed_errors_only(noise: bytes) -> None:
    for data in (noise, small_upgrade()[:16] + noise):
        with pytest.raises(EssCanError):
            split_upgrade_file(data)
    for data in (noise, MAGIC.to_bytes(4, "little") + noise, small_image()[:0x208] + noise):
        with pytest.raises(ImageInvalid):
            parse_node_image(data)
    with pytest.raises(EssCanError):
        open_upgrade_file(assemble(noise or b"{", [small_image()], RELEASE), RING)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(JSON, st.sampled_from(["created", "expires", "images", "release_name", "release_version"]))
@settings(max_examples=200, deadline=None)
def test_any_json_in_a_manifest_is_read_or_refused(value: object, name: str) -> None:
    document = json.loads(split_upgrade_file(small_upgrade()).manifest)
    document[name] = value
    data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    try:
        manifest = parse_manifest(data)
    except ManifestInvalid:
        return
    assert encode_manifest(manifest) == data


@given(st.binary(max_size=200), st.sampled_from(FirmwareFormat))
@settings(max_examples=200, deadline=None)
def test_readers_raise_typed_errors_only(noise: bytes, kind: FirmwareFormat) -> None:
    for data in (noise, b":" + noise, b"S1" + noise, b"\x7fELF\x01\x01\x01" + noise):
        with contextlib.suppress(EssCanError):  # anything else fails the test
            parse_firmware(data, kind)
