"""A stand-in for a terminal, and what a person sees on it."""

import io
import re

TOKEN = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True

    @property
    def screen(self) -> list[str]:
        """The lines on an endless screen, after all that was written: cursor up, erased lines, overwritten text."""
        lines, row, column = [""], 0, 0
        for parameter, command, control, text in TOKEN.findall(self.getvalue()):
            if text:
                lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + len(text) :]
                column += len(text)
            elif control == "\n":
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            elif control == "\r":
                column = 0
            elif command == "A":
                row -= int(parameter or 1)
            elif command == "K":
                lines[row] = ""
        return lines

    @property
    def commands(self) -> set[str]:
        """The control sequences that were sent, besides colours."""
        return {f"{parameter}{command}" for parameter, command, _, _ in TOKEN.findall(self.getvalue())} - {""}
