// SPDX-License-Identifier: BSD-3-Clause
// The commands of sidecard. Each gets its own name as argv[0] and returns the exit status: 0, 2 for a mistake in what was
// typed, 1 for what went wrong otherwise.
#pragma once

int sdc_command_serve(int argc, char **argv);
int sdc_command_bench(int argc, char **argv);
int sdc_command_inspect(int argc, char **argv);
int sdc_command_check(int argc, char **argv);
