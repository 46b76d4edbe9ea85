"""Names that must mean nothing to a file system, a store or a terminal."""

ODD_NAMES = {
    "parent": "..",
    "up": "../escape",
    "up and down": "a/../../escape",
    "absolute": "/etc/passwd",
    "here": ".",
    "empty": "",
    "zero byte": "a\0b",
    "line break": "a\nb",
    "escape sequence": "\x1b[2Jgone",
    "backslash": "..\\escape",
    "drive": "C:\\escape",
    "home": "~/escape",
    "long": "x" * 300,
    "look-alike": "r\u0430tchet",
    "right to left": "a\u202ecod.nosj",
    "no width": "a\u200bb",
    "whole url": "s3://other/escape",
}
