#!/usr/bin/env bash
# Answers, so that the caller knows that the node can be reached.
echo hello
