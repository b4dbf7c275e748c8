# 1 + 2 + ... + 100 = 5050 (0x13ba); the sum is also stored where the second register points to.  In: a1 = memory. Out: v0.
    .set noreorder
    daddiu $2, $0, 0
    daddiu $12, $0, 100
1:  daddu $2, $2, $12
    daddiu $12, $12, -1
    bnez $12, 1b
    nop
    sw $2, 0($5)
