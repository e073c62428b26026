/* The tables (ACPI 6.3, 5.2.8). */
[0004]                          Signature : "XSDT"
[0004]                       Table Length : 00000000
[0001]                           Revision : 01
[0001]                           Checksum : 00
[0006]                             Oem ID : "QUIRE "
[0008]                       Oem Table ID : "PC      "
[0004]                       Oem Revision : 00000001
[0004]                    Asl Compiler ID : "INTL"
[0004]              Asl Compiler Revision : 00000000

[0008]                        FADT Address : 00000000000E00C0
[0008]                        MADT Address : 00000000000E0200
[0008]                        HPET Address : 00000000000E02A0
