"""A tiny network in ONNX's format, written byte by byte, as the package that writes it is not needed otherwise."""

from pathlib import Path

import numpy as np


def save_classifier(file: Path) -> Path:
    """[1, 224, 224, 3] -> softmax of two numbers that are linear in the mean colour."""
    weight = np.array([[0.02, -0.01], [-0.01, 0.03], [0.015, 0.01]], dtype=np.float32)
    tensor = _number(1, 3) + _number(1, 2) + _number(2, 1) + _bytes(8, b"w") + _bytes(9, weight.tobytes())
    axes = _bytes(1, b"axes") + _number(8, 1) + _number(8, 2) + _number(20, 7)
    flat = _bytes(1, b"keepdims") + _number(3, 0) + _number(20, 2)
    nodes = [
        _node("ReduceMean", ["x"], "m") + _bytes(5, axes) + _bytes(5, flat),
        _node("MatMul", ["m", "w"], "l"),
        _node("Softmax", ["l"], "p"),
    ]
    graph = b"".join(_bytes(1, node) for node in nodes) + _bytes(2, b"tiny") + _bytes(5, tensor)
    graph += _bytes(11, _value("x", 1, 224, 224, 3)) + _bytes(12, _value("p", 1, 2))
    file.write_bytes(_number(1, 8) + _bytes(7, graph) + _bytes(8, _number(2, 13)))
    return file


def _node(kind: str, inputs: list[str], output: str) -> bytes:
    return b"".join(_bytes(1, name.encode()) for name in inputs) + _bytes(2, output.encode()) + _bytes(4, kind.encode())


def _value(name: str, *shape: int) -> bytes:
    sizes = b"".join(_bytes(1, _number(1, size)) for size in shape)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, _number(1, 1) + _bytes(2, sizes)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
