/* placeholder until the balancer lands */
/* cdef: begin */
/* cdef: end */
