"""Where records come from: files, folders, globs, HTTP(S) addresses; JSON rows out of bytes; the parser process."""
