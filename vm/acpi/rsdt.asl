/* The tables by 32-bit addresses, for those who know no XSDT (ACPI 6.3, 5.2.7). */
[0004]                          Signature : "RSDT"
[0004]                       Table Length : 00000000
[0001]                           Revision : 01
[0001]                           Checksum : 00
[0006]                             Oem ID : "QUIRE "
[0008]                       Oem Table ID : "PC      "
[0004]                       Oem Revision : 00000001
[0004]                    Asl Compiler ID : "INTL"
[0004]              Asl Compiler Revision : 00000000

[0004]                        FADT Address : 000E00C0
[0004]                        MADT Address : 000E0200
[0004]                        HPET Address : 000E02A0
