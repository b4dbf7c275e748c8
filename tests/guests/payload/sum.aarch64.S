// 1 + 2 + ... + 100 = 5050 (0x13ba); the sum is also stored where the second register points to.  In: x1 = memory. Out: x0.
    mov x0, #0
    mov x2, #100
1:  add x0, x0, x2
    subs x2, x2, #1
    b.ne 1b
    str w0, [x1]
