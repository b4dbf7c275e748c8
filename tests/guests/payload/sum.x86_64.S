# 1 + 2 + ... + 100 = 5050 (0x13ba); the sum is also stored where the second register points to.  In: rbx = memory. Out: rax.
    xorl %eax, %eax
    movl $100, %ecx
1:  addq %rcx, %rax
    decq %rcx
    jnz 1b
    movl %eax, (%rbx)
