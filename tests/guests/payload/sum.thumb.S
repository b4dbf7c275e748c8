@ 1 + 2 + ... + 100 = 5050 (0x13ba); the sum is also stored where the second register points to.  In: r1 = memory. Out: r0.
    .syntax unified
    .thumb
    movs r0, #0
    movs r2, #100
1:  adds r0, r0, r2
    subs r2, r2, #1
    bne 1b
    str.w r0, [r1]
