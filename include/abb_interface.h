/*
 * interface (floor 6): the account of a request, for other modules.
 *
 * What include/mod_auth_bitbucket.h promises. Knows no rule and decides nothing.
 */
#ifndef ABB_INTERFACE_H
#define ABB_INTERFACE_H

/* Offer the optional function. Threads: start-up only. */
void abb_interface_register(void);

#endif
