# 1 + 2 + ... + 100 = 5050 (0x13ba); the sum is also stored where the second register points to.  In: a1 = memory. Out: v0.
    .set noreorder
    addiu $v0, $zero, 0
    addiu $t0, $zero, 100
1:  addu $v0, $v0, $t0
    addiu $t0, $t0, -1
    bnez $t0, 1b
    nop
    sw $v0, 0($a1)
