#!/usr/bin/env bash
# Says that somebody is at home.
echo hello
