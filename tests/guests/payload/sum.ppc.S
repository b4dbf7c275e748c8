# 1 + 2 + ... + 100 = 5050 (0x13ba); the sum is also stored where the second register points to.  In: 4 = memory. Out: 3.
    li 3, 0
    li 5, 100
    mtctr 5
1:  add 3, 3, 5
    addi 5, 5, -1
    bdnz 1b
    stw 3, 0(4)
