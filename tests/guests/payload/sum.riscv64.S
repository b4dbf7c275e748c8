# 1 + 2 + ... + 100 = 5050 (0x13ba); the sum is also stored where the second register points to.  In: a1 = memory. Out: a0.
    li a0, 0
    li t0, 100
1:  add a0, a0, t0
    addi t0, t0, -1
    bnez t0, 1b
    sw a0, 0(a1)
