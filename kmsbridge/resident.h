/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KMSBRIDGE_RESIDENT_H
#define KMSBRIDGE_RESIDENT_H

/*
 * Lets go of the pages of programs and libraries: what only the start has needed (loading,
 * constructors, self-tests) is most of what is resident by then. They stay in the page cache, and
 * what is used again comes back from there by a minor fault.
 *
 * Only of mappings that nobody may write to and of which no page has been written: a library that
 * has changed its own code keeps it. And only of those that were there when they were noted, before
 * there was a thread that could load a library: while one does, its data lies where a moment ago
 * there was a mapping of the file that nobody could write to. Does nothing without /proc.
 * proc_pid_smaps(5), madvise(2).
 */
void kms_resident_note(void); /* while there is one thread */
void kms_resident_trim(void);

#endif
