# 1 + 2 + ... + 100 = 5050 (0x13ba); the sum is also stored where the second register points to.  In: ebx = memory. Out: eax.
    xorl %eax, %eax
    movl $100, %ecx
1:  addl %ecx, %eax
    decl %ecx
    jnz 1b
    movl %eax, (%ebx)
