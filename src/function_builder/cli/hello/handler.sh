#!/bin/sh
# Greets everyone named on standard input, one a line.
while read -r name; do
    echo "$GREETING, $name!"
done
