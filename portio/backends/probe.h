/* What an engine finds out about the system, once for the process. */
#ifndef PORTIO_PROBE_H
#define PORTIO_PROBE_H

#include <errno.h>
#include <stdbool.h>

#include "native.h"

/* Gives what `look` has found, now or before.  It says whether that holds for good; if not
   (memory was exhausted, say) the next call looks again.  There is no lock, which a thread
   could hold while another one forks, so that the child would wait for ever: two threads may
   look at once, and find the same. */
void probe_once(portio_probe *probe, bool (*look)(portio_probe *probe));

/* What fails for want of descriptors or memory says nothing of the system. */
static inline bool probe_is_passing(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == EAGAIN;
}

#endif
