// SPDX-License-Identifier: BSD-3-Clause
// A configuration file that is read again while its cards run. Each card finds its new options there by its socket; what can change
// of it then does (sdc_card.reload).
#pragma once

#include "control/options.h"

struct sdc_reload;

// Reads the file. A reference for the caller. 0 or a negative errno with err filled: nothing changes.
int sdc_reload_read(const char *path, struct sdc_reload **reload, struct sdc_error *err);
struct sdc_reload *sdc_reload_ref(struct sdc_reload *reload);
// Any thread. NULL is fine.
void sdc_reload_unref(struct sdc_reload *reload);
// What the file says of the card at that socket; NULL: nothing. Any thread.
const struct sdc_serve_options *sdc_reload_find(const struct sdc_reload *reload, const char *socket);
// How many cards are in it.
unsigned sdc_reload_cards(const struct sdc_reload *reload);
