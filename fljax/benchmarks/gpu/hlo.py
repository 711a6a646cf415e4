"""Reads compiled modules as XLA writes them: instructions, the bytes they move, their operations.

A fusion is counted by what it reads and writes in memory: of an array that it only slices, the
slices, and of one that it updates in place, the update.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_ARRAY = re.compile(r"\b([a-z]+[0-9]*)\[([\d,]*)\]")
_SLICES = ("dynamic-slice", "slice", "gather")
_VIEWS = ("bitcast", "get-tuple-element", "reshape")


class Instruction(NamedTuple):
    """An instruction of a computation.

    Attributes:
      name: Unique in the module.
      shape: Of the result, as text.
      opcode: What it does.
      operands: Names.
      attributes: What stands behind the operands, as text.
      is_root: Whether it is its computation's result.
    """

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    def called(self, attribute: str) -> str | None:
        """Returns the name of a computation that it calls, such as its "body"."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return found.group(1) if found else None


class Module(NamedTuple):
    """A compiled module.

    Attributes:
      computations: {name: {name of an instruction: instruction}}.
      home: {name of an instruction: name of its computation}.
      functions: {number of a stack frame: the Python function that the frame is in}.
    """

    computations: Mapping[str, Mapping[str, Instruction]]
    home: Mapping[str, str]
    functions: Mapping[int, str]

    def find(self, name: str) -> Instruction | None:
        """Returns an instruction by name, or None."""
        home = self.home.get(name)
        return None if home is None else self.computations[home][name]

    def function_of(self, instruction: Instruction) -> str:
        """Returns the name of the Python function that an instruction stems from."""
        frame = re.search(r"stack_frame_id=(\d+)", instruction.attributes)
        return self.functions.get(int(frame.group(1)), "") if frame else ""

    def shape_of(self, user: Instruction, number: int) -> str:
        """Returns the shape of an operand."""
        return self.computations[self.home[user.name]][user.operands[number]].shape


def parse(text: str) -> Module:
    """Reads a module from the text of a compiled program."""
    computations: dict[str, dict[str, Instruction]] = {}
    current: dict[str, Instruction] = {}
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            current = computations[head.group(2)] = {}
        elif found := _INSTRUCTION.match(line):
            root, name, shape, opcode, rest = found.groups()
            operands, attributes = _split(rest)
            current[name] = Instruction(name, shape, opcode, operands, attributes, bool(root))
    home = {name: where for where, held in computations.items() for name in held}
    return Module(computations, home, _functions(text))


def _split(rest: str) -> tuple[tuple[str, ...], str]:
    """Splits what stands behind "opcode(" into operands and attributes."""
    depth = 1
    for place, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return tuple(re.findall(r"%([\w.\-]+)", rest[:place])), rest[place + 1 :]
    return (), rest


def _functions(text: str) -> dict[int, str]:
    """Returns the function of each stack frame from the tables at the head of a module."""

    def table(title: str) -> dict[int, str]:
        found = re.search(rf"^{title}\n((?:\d+ .*\n)*)", text, re.M)
        lines = found.group(1).splitlines() if found else []
        return {int(number): entry for number, _, entry in (line.partition(" ") for line in lines)}

    def link(entry: str, key: str) -> int:
        return int(re.search(rf"{key}=(\d+)", entry).group(1))

    names, locations = table("FunctionNames"), table("FileLocations")
    return {
        number: names[link(locations[link(frame, "file_location_id")], "function_name_id")].strip(
            '"'
        )
        for number, frame in table("StackFrames").items()
    }


def array_bytes(shape: str) -> int:
    """Returns the bytes of an array, or of all arrays of a tuple."""
    return sum(_elements(sizes) * _width(kind) for kind, sizes in _ARRAY.findall(shape))


def _elements(sizes: str) -> int:
    return math.prod(int(size) for size in sizes.split(",") if size)


@functools.cache
def _width(kind: str) -> int:
    bits = re.search(r"\d+", kind)
    return max(1, int(bits.group()) // 8) if bits else 1  # pred


def moved_bytes(module: Module, instruction: Instruction) -> int:
    """Returns the bytes that an instruction reads from memory and writes to it."""
    if instruction.opcode == "fusion":
        body = _fused(module, instruction)
        return sum(_read(module, body, name) for name in _parameters(body)) + _written(module, body)
    written = _value_bytes(instruction)
    if instruction.opcode == "dynamic-update-slice":
        return 2 * array_bytes(module.shape_of(instruction, 1))
    if instruction.opcode in _SLICES:
        return 2 * written
    places = range(len(instruction.operands))
    return written + sum(array_bytes(module.shape_of(instruction, place)) for place in places)


def _fused(module: Module, fusion: Instruction) -> Mapping[str, Instruction]:
    """Returns the instructions of a fusion."""
    return module.computations[fusion.called("calls") or ""]


def _parameters(body: Mapping[str, Instruction]) -> list[str]:
    return [name for name, found in body.items() if found.opcode == "parameter"]


def _read(module: Module, body: Mapping[str, Instruction], name: str) -> int:
    """Returns the bytes that a fusion reads of a value that comes in."""
    total = 0
    for user in body.values():
        for place, operand in enumerate(user.operands):
            if operand != name:
                continue
            if user.opcode in _VIEWS:
                total += _read(module, body, user.name)
            elif place == 0 and user.opcode in _SLICES:
                # of a block of times, the time that is sliced out of it
                whole = user.is_root or user.opcode == "gather"
                total += array_bytes(user.shape) if whole else _read(module, body, user.name)
            elif place == 0 and user.opcode in ("dynamic-update-slice", "scatter"):
                total += _updated(module, user) if user.opcode == "scatter" else 0
            else:
                return array_bytes(body[name].shape)
    return min(total, array_bytes(body[name].shape))


def _updated(module: Module, user: Instruction) -> int:
    """Returns the bytes of what an update in place puts in."""
    return array_bytes(module.shape_of(user, 1 if user.opcode == "dynamic-update-slice" else 2))


def _written(module: Module, body: Mapping[str, Instruction]) -> int:
    """Returns the bytes that a fusion writes."""
    root = next(found for found in body.values() if found.is_root)
    results = [body[name] for name in root.operands] if root.opcode == "tuple" else [root]
    return sum(_result_bytes(module, body, result) for result in results)


def _result_bytes(module: Module, body: Mapping[str, Instruction], result: Instruction) -> int:
    """Returns the bytes that a fusion writes of one of its results."""
    while result.opcode in _VIEWS and result.operands[0] in body:
        place = re.search(r"\bindex=(\d+)", result.attributes)
        result = body[result.operands[0]]
        if result.opcode == "custom-call" and place and place.group(1) != "0":
            return 0
    if result.opcode in ("dynamic-update-slice", "scatter"):
        return _updated(module, result)
    return _value_bytes(result)


def _value_bytes(instruction: Instruction) -> int:
    """Returns the bytes of a result, of a call to a library without the room that it works in."""
    shape = instruction.shape
    if instruction.opcode == "custom-call" and (first := _ARRAY.search(shape)):
        shape = first.group()
    return array_bytes(shape)


def is_copy(module: Module, instruction: Instruction) -> bool:
    """Returns whether an instruction only copies an array."""
    if instruction.opcode != "fusion":
        return instruction.opcode in ("copy", "copy-start")
    body = _fused(module, instruction).values()
    return all(found.opcode in (*_VIEWS, "parameter", "copy", "tuple") for found in body)


def product_operations(module: Module, instruction: Instruction) -> int:
    """Returns the multiplications and additions of the matrix products of an instruction.

    Convolutions of cuDNN are not counted.
    """
    if instruction.opcode == "fusion":
        return sum(
            product_operations(module, found) for found in _fused(module, instruction).values()
        )
    if instruction.opcode == "dot":
        dims = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
    elif "__cublas" in instruction.attributes:
        dims = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.attributes)
    else:
        return 0
    _, sizes = _ARRAY.search(module.shape_of(instruction, 0)).groups()
    sides = [int(size) for size in sizes.split(",")]
    inner = math.prod(sides[int(place)] for place in re.findall(r"\d+", dims.group(1)))
    return 2 * inner * _elements(_ARRAY.search(instruction.shape).group(2))


def trip_count(instruction: Instruction) -> int | None:
    """Returns how often a while loop runs, where XLA knows it."""
    found = re.search(r'known_trip_count":\{"n":"(\d+)"', instruction.attributes)
    return int(found.group(1)) if found else None
